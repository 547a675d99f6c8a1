// The commands of the program. What each does is in its own file.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>

#include <unistd.h>

#include "base/error.h"
#include "cli/args.h"
#include "cli/commands.h"

namespace millrace::cli {
namespace {

// What was printed must have arrived: a full disk behind `> file` is a failure too.
int check_output(int status) {
  const bool failed = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  if (failed && errno != EPIPE) {
    throw_failed(str("cannot write the output: ", std::strerror(errno)), "standard output",
                 "free some disk space or write somewhere else");
  }
  return status;
}

int run_program(int argc, char** argv) {
  Program program;
  add_run(program);
  add_build(program);
  add_bench(program);
  add_perplexity(program);
  add_embed(program);
  add_explain(program);
  add_inspect(program);
  add_tokenize(program);
  add_cache(program);
  add_version(program);
  return check_output(program.run(argc, argv));
}

// Ctrl-C ends at once; what is half-written has a temporary name that the next program removes.
void on_interrupt(int) {
  _exit(130);
}

}  // namespace
}  // namespace millrace::cli

int main(int argc, char** argv) {
  std::signal(SIGINT, millrace::cli::on_interrupt);
  try {
    return millrace::cli::run_program(argc, argv);
  } catch (const millrace::Error& error) {
    std::fprintf(stderr, "millrace: error: %s\n", error.what());
    return error.code() == millrace::ErrorCode::kBadInput ? 2 : 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "millrace: error: out of memory; use smaller limits or a smaller model\n");
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "millrace: error: %s\n", error.what());
    return 1;
  }
}
