// millrace bench op: checks or times the operations with nothing but the program.
#pragma once

namespace millrace::cli {

class Command;

void add_bench_op(Command& bench);

}  // namespace millrace::cli
