// One function per command: declares its options and what it does.
#pragma once

namespace millrace::cli {

class Program;

void add_run(Program& program);
void add_build(Program& program);
void add_bench(Program& program);
void add_perplexity(Program& program);
void add_embed(Program& program);
void add_explain(Program& program);
void add_inspect(Program& program);
void add_tokenize(Program& program);
void add_cache(Program& program);
void add_version(Program& program);

}  // namespace millrace::cli
