#include "cli/args.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "base/version.h"

namespace millrace::cli {
namespace {

std::map<const CLI::App*, std::function<int()>>& actions() {
  static std::map<const CLI::App*, std::function<int()>> all;
  return all;
}

// The command that was chosen and those it stands below, outermost first.
std::vector<const CLI::App*> chosen(const CLI::App& app) {
  std::vector<const CLI::App*> commands;
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands()[0];
    commands.push_back(at);
  }
  return commands;
}

template <typename T>
void add(CLI::App& app, const std::string& group, const std::string& names, T* target,
         const std::string& help) {
  app.add_option(names, *target, help)->group(group);
}

}  // namespace

Command& Command::option(const std::string& names, std::string* target, const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, std::optional<std::string>* target,
                         const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, int* target, const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, int64_t* target, const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, std::optional<int>* target,
                         const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, std::optional<int64_t>* target,
                         const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, std::optional<uint64_t>* target,
                         const std::string& help) {
  app_.add_option_function<std::string>(
          names,
          [target, names](const std::string& text) { *target = parse_unsigned(text, names); }, help)
      ->group(group_)
      ->type_name("UINT");
  return *this;
}
Command& Command::option(const std::string& names, std::optional<double>* target,
                         const std::string& help) {
  add(app_, group_, names, target, help);
  return *this;
}

Command& Command::option(const std::string& names, std::vector<std::string>* target,
                         const std::string& help) {
  app_.add_option(names, *target, help)->group(group_)->expected(1)->take_all();
  return *this;
}

Command& Command::optional_value(const std::string& names, std::optional<uint64_t>* target,
                                 const std::string& help) {
  // A flag with a value, so that `--name POSITIONAL` does not take the positional for its value.
  const auto text = std::make_shared<std::string>();
  app_.add_flag(names + "{true}", *text, help)
      ->group(group_)
      ->each([target, names, text](const std::string& value) {
        *target = value == "true" ? 0 : parse_unsigned(value, names);
      });
  return *this;
}

Command& Command::bytes(const std::string& names, int64_t* target, const std::string& help) {
  app_.add_option_function<std::string>(
          names, [target, names](const std::string& text) { *target = parse_bytes(text, names); },
          help)
      ->group(group_)
      ->type_name("SIZE");
  return *this;
}

Command& Command::flag(const std::string& names, bool* target, const std::string& help) {
  app_.add_flag(names, *target, help)->group(group_);
  return *this;
}

Command& Command::positional(const std::string& name, std::string* target, const std::string& help,
                             bool required) {
  app_.add_option(name, *target, help)->required(required);
  return *this;
}

Command& Command::positional(const std::string& name, std::optional<std::string>* target,
                             const std::string& help) {
  app_.add_option(name, *target, help);
  return *this;
}

Command& Command::group(const std::string& heading) {
  group_ = heading;
  return *this;
}

Command& Command::footer(const std::string& text) {
  app_.footer(text);
  return *this;
}

Command Command::command(const std::string& name, const std::string& help) {
  app_.require_subcommand(1, 1);
  CLI::App* below = app_.add_subcommand(name, help);
  below->option_defaults()->always_capture_default(false);
  return Command(*below);
}

Command& Command::run(std::function<int()> action) {
  actions()[&app_] = std::move(action);
  return *this;
}

struct Program::State {
  CLI::App app{"Millrace compiles a transformer language model into an engine and runs it.",
               "millrace"};
};

Program::Program() : state_(std::make_unique<State>()) {
  state_->app.require_subcommand(0, 1);
  state_->app.set_version_flag("--version", str("millrace ", version()));
  state_->app.footer("`millrace COMMAND --help` shows a command's options.");
  state_->app.option_defaults()->always_capture_default(false);
}

Program::~Program() = default;

Command Program::command(const std::string& name, const std::string& help) {
  CLI::App* command = state_->app.add_subcommand(name, help);
  command->option_defaults()->always_capture_default(false);
  return Command(*command);
}

int Program::run(int argc, char** argv) {
  try {
    state_->app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return state_->app.exit(help);
  } catch (const CLI::CallForVersion& asked) {
    return state_->app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::string message = error.what();
    std::string command;
    int depth = 0;
    for (const CLI::App* app : chosen(state_->app)) {
      command += " " + app->get_name();
      ++depth;
    }
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && depth + 1 < argc &&
        argv[depth + 1][0] != '-' && message.find("subcommand") != std::string::npos) {
      message = str("there is no command '", argv[depth + 1], "'");
    }
    throw_bad_input(message, str("millrace", command), str("see `millrace", command, " --help`"));
  }
  const std::vector<const CLI::App*> commands = chosen(state_->app);
  if (commands.empty()) {
    throw_bad_input("no command was given", "millrace", "see `millrace --help`");
  }
  return actions().at(commands.back())();
}

uint64_t parse_unsigned(const std::string& text, const std::string& flag) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != end) {
    throw_bad_input(str("'", text, "' is not a whole number from 0 on"), flag, "write it as 42");
  }
  return value;
}

int64_t parse_bytes(const std::string& text, const std::string& flag) {
  static const std::map<std::string, double> units = {{"", 1},
                                                      {"B", 1},
                                                      {"KiB", 1024.0},
                                                      {"MiB", 1048576.0},
                                                      {"GiB", 1073741824.0},
                                                      {"TiB", 1099511627776.0},
                                                      {"KB", 1e3},
                                                      {"MB", 1e6},
                                                      {"GB", 1e9},
                                                      {"TB", 1e12}};
  double value = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  const auto unit = units.find(std::string(parsed.ptr, end));
  if (parsed.ec != std::errc() || unit == units.end() || value < 0 || value * unit->second > 9e18) {
    throw_bad_input(str("'", text, "' is not a size"), flag, "write it as 8GiB, 512MiB or 1000000");
  }
  return static_cast<int64_t>(value * unit->second);
}

std::vector<int32_t> parse_ids(const std::string& text, const std::string& flag) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end) {
    while (at < end && (*at == ' ' || *at == ','))
      ++at;
    if (at == end) break;
    int32_t id = 0;
    const auto parsed = std::from_chars(at, end, id);
    const bool separated = parsed.ptr == end || *parsed.ptr == ',' || *parsed.ptr == ' ';
    if (parsed.ec != std::errc() || !separated) {
      throw_bad_input(str("'", text, "' is not a list of token ids"), flag, "write it as 3,17,99");
    }
    ids.push_back(id);
    at = parsed.ptr;
  }
  return ids;
}

}  // namespace millrace::cli
