// Command-line options, declared by the variables they set. CLI11 stays in args.cc: its header is
// slow to compile.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11's own name, its App is declared
                 // here
class App;
}

namespace millrace::cli {

/// One command: its options write into variables that outlive parse().
class Command {
 public:
  explicit Command(CLI::App& app) : app_(app) {}

  Command& option(const std::string& names, std::string* target, const std::string& help);
  Command& option(const std::string& names, std::optional<std::string>* target,
                  const std::string& help);
  Command& option(const std::string& names, int* target, const std::string& help);
  Command& option(const std::string& names, int64_t* target, const std::string& help);
  Command& option(const std::string& names, std::optional<int>* target, const std::string& help);
  Command& option(const std::string& names, std::optional<int64_t>* target,
                  const std::string& help);
  Command& option(const std::string& names, std::optional<uint64_t>* target,
                  const std::string& help);
  Command& option(const std::string& names, std::optional<double>* target, const std::string& help);
  /// May be given several times.
  Command& option(const std::string& names, std::vector<std::string>* target,
                  const std::string& help);
  /// `--name` alone gives 0, `--name=N` gives N.
  Command& optional_value(const std::string& names, std::optional<uint64_t>* target,
                          const std::string& help);
  /// `8GiB`, `512MiB`, `1024`.
  Command& bytes(const std::string& names, int64_t* target, const std::string& help);
  Command& flag(const std::string& names, bool* target, const std::string& help);
  Command& positional(const std::string& name, std::string* target, const std::string& help,
                      bool required = true);
  Command& positional(const std::string& name, std::optional<std::string>* target,
                      const std::string& help);
  /// Heading of the options that follow, in --help.
  Command& group(const std::string& heading);
  /// Text behind the options in --help: examples.
  Command& footer(const std::string& text);
  /// A command below this one; one of them must then be chosen.
  Command command(const std::string& name, const std::string& help);
  /// What to do when this command was chosen; returns the exit status.
  Command& run(std::function<int()> action);

 private:
  CLI::App& app_;
  std::string group_ = "Options";
};

/// The program: commands with one line of help each, in this order.
class Program {
 public:
  Program();
  ~Program();
  Command command(const std::string& name, const std::string& help);
  /// Parses and runs the chosen command; returns the exit status. `--help` prints to standard
  /// output (0); a usage error is thrown as Error (kBadInput).
  int run(int argc, char** argv);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "42". Throws Error naming `flag`.
uint64_t parse_unsigned(const std::string& text, const std::string& flag);
/// "1.5GiB" in bytes. Throws Error naming `flag`.
int64_t parse_bytes(const std::string& text, const std::string& flag);
/// "3,17,99". Throws Error naming `flag`.
std::vector<int32_t> parse_ids(const std::string& text, const std::string& flag);

}  // namespace millrace::cli
