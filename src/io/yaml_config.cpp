#include "caravan/io/yaml_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/core/text_file.h"
#include "config_reader.h"
#include "yaml_tree.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxIncludes = 256;  // files that include each other twice over grow without end
constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxProblems = 100;  // nobody mends more at once
constexpr std::size_t kMaxProblemBytes = 1000;
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 20U;

std::optional<std::string> read_text(const std::string& path, std::string& why) {
  try {
    return read_text_file(path, kMaxFileBytes);
  } catch (const IoError& error) {
    why = std::string_view(error.what()).substr(std::min(path.size() + 2, std::strlen(error.what())));
    return std::nullopt;
  }
}

/// Reads files and what they include into one tree.
class Loader {
 public:
  explicit Loader(std::vector<yaml::Problem>& problems) : problems_(problems) {}

  yaml::Node load_file(const std::string& path, const yaml::Place& asked_at) {
    std::error_code status;
    const fs::path real = fs::weakly_canonical(path, status);
    if (std::find(open_.begin(), open_.end(), real) != open_.end()) {
      problems_.emplace_back(asked_at, fmt::format("include: {} includes itself", path), true);
      return {};
    }
    if (open_.size() >= kMaxDepth || files_ == kMaxIncludes) {
      if (!std::exchange(is_over_limit_, true)) {  // the same is true of every include that follows
        problems_.emplace_back(asked_at,
                               fmt::format("include: more than {} files, or {} inside each other, at {}",
                                           kMaxIncludes, kMaxDepth, path),
                               true);
      }
      return {};
    }
    ++files_;
    std::string why;
    const auto text = read_text(path, why);
    if (!text) {
      problems_.emplace_back(asked_at,
                             asked_at.source == path ? why : fmt::format("include: {} {}", path, why), true);
      return {};
    }
    open_.push_back(real);
    yaml::Node root = load_text(*text, path, fs::path(path).parent_path());
    open_.pop_back();
    return root;
  }

  yaml::Node load_text(const std::string& text, const std::string& source, const fs::path& folder) {
    yaml::Node own = yaml::parse(text, source, problems_);
    if (own.kind == yaml::Node::Kind::kNull) {
      return empty_map(source);
    }
    if (own.kind != yaml::Node::Kind::kMap) {
      problems_.emplace_back(own.place,
                             fmt::format("got {}; a configuration is a section of keys, like "
                                         "seed: 42",
                                         own.describe()),
                             true);
      return empty_map(source);
    }
    yaml::Node result = empty_map(source);
    const auto include = std::find_if(own.items.begin(), own.items.end(),
                                      [](const yaml::Node& item) { return item.key == "include"; });
    if (include != own.items.end()) {
      const yaml::Node wanted = std::move(*include);
      own.items.erase(include);
      load_includes(wanted, folder, result);
    }
    yaml::merge(result, std::move(own));
    return result;
  }

 private:
  static yaml::Node empty_map(const std::string& source) {
    yaml::Node node;
    node.kind = yaml::Node::Kind::kMap;
    node.place.source = source;
    return node;
  }

  void load_includes(const yaml::Node& wanted, const fs::path& folder, yaml::Node& result) {
    if (wanted.kind == yaml::Node::Kind::kScalar) {
      load_include(wanted, folder, result);
    } else if (wanted.kind == yaml::Node::Kind::kList) {
      for (const yaml::Node& item : wanted.items) {
        load_include(item, folder, result);
      }
    } else if (wanted.kind == yaml::Node::Kind::kMap) {
      problems_.emplace_back(wanted.place, "include: got a section; expected a file or a list of files");
    }
  }

  void load_include(const yaml::Node& name, const fs::path& folder, yaml::Node& result) {
    if (name.kind != yaml::Node::Kind::kScalar || name.text.empty()) {
      problems_.emplace_back(name.place,
                             fmt::format("include: got {}; expected the name of a file", name.describe()));
      return;
    }
    const fs::path path = (folder / name.text).lexically_normal();  // an absolute name replaces the folder
    yaml::merge(result, load_file(path.string(), name.place));
  }

  std::vector<yaml::Problem>& problems_;
  std::vector<fs::path> open_;
  std::size_t files_ = 0;
  bool is_over_limit_ = false;
};

/// "a.b=c" as a tree of one value.
std::optional<yaml::Node> parse_override(const std::string& text, std::vector<yaml::Problem>& problems) {
  const std::string source = "--set " + text;
  const auto equals = text.find('=');
  const std::string name = text.substr(0, equals);
  if (equals == std::string::npos || name.empty() || name.front() == '.' || name.back() == '.' ||
      name.find("..") != std::string::npos) {
    problems.emplace_back(yaml::Place(source), "is not of the form key=value, like optimizer.lr=1e-4", true);
    return std::nullopt;
  }
  std::string value = text.substr(equals + 1);
  yaml::Node node;
  // A pattern like *.gz would be a YAML alias; nobody means one on a command line.
  if (!value.empty() && std::string("*&!%@`").find(value.front()) != std::string::npos) {
    node.kind = yaml::Node::Kind::kScalar;
    node.text = std::move(value);
  } else {
    const std::size_t before = problems.size();
    node = yaml::parse(value, source, problems);
    if (problems.size() != before) {
      return std::nullopt;
    }
  }
  node.place = yaml::Place(source);
  for (std::string rest = name; !rest.empty();) {
    const auto dot = rest.rfind('.');
    node.key = dot == std::string::npos ? rest : rest.substr(dot + 1);
    node.key_place = yaml::Place(source);
    rest = dot == std::string::npos ? "" : rest.substr(0, dot);
    yaml::Node parent;
    parent.kind = yaml::Node::Kind::kMap;
    parent.place = node.place;
    parent.items.push_back(std::move(node));
    node = std::move(parent);
  }
  return node;
}

/// Where to point for a problem with `key`: its value, else the nearest section around it, else the file.
yaml::Place place_of(const std::string& key, const ReadConfig& read, const std::string& source) {
  for (std::string name = key; !name.empty();) {
    if (const auto found = read.places.find(name); found != read.places.end()) {
      return found->second;
    }
    const auto dot = name.rfind('.');
    name = dot == std::string::npos ? "" : name.substr(0, dot);
  }
  return yaml::Place(source);
}

/// A value that could not be read was replaced by its default: nothing follows from that.
bool follows_from_wrong_value(const std::string& key, const ReadConfig& read) {
  return std::any_of(read.is_wrong.begin(), read.is_wrong.end(), [&](const auto& entry) {
    return entry.second && (entry.first == key || entry.first.starts_with(key + "."));
  });
}

[[noreturn]] void throw_all(const std::string& source, const std::vector<yaml::Problem>& problems) {
  std::string message = problems.size() == 1
                            ? fmt::format("the configuration {} has a problem:", source)
                            : fmt::format("the configuration {} has {} problems:", source, problems.size());
  const std::size_t told = std::min(problems.size(), kMaxProblems);
  for (const yaml::Problem& problem : std::span(problems).first(told)) {
    message +=
        "\n  " + excerpt(fmt::format("{}: {}", problem.place.str(), problem.message), kMaxProblemBytes);
  }
  if (told < problems.size()) {
    message += fmt::format("\n  and {} more", problems.size() - told);
  }
  throw ConfigError(message);
}

RunConfig finish(yaml::Node root, const std::string& source, const std::vector<std::string>& overrides,
                 std::vector<yaml::Problem> problems) {
  for (const std::string& text : overrides) {
    if (auto node = parse_override(text, problems)) {
      yaml::merge(root, std::move(*node));
    }
  }
  // With a file missing or broken, what its keys would have said is not known.
  const bool is_complete = std::none_of(problems.begin(), problems.end(),
                                        [](const yaml::Problem& problem) { return problem.hides_values; });
  const ReadConfig read = read_config(root, problems);
  if (is_complete) {
    for (const ConfigProblem& problem : find_problems(read.config)) {
      if (!follows_from_wrong_value(problem.key, read)) {
        problems.emplace_back(place_of(problem.key, read, source),
                              fmt::format("{}: {}", problem.key, problem.message));
      }
    }
  }
  if (!problems.empty()) {
    throw_all(source, problems);
  }
  return read.config;
}

}  // namespace

RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  std::vector<yaml::Problem> problems;
  Loader loader(problems);
  yaml::Node root = loader.load_file(path, yaml::Place(path));
  return finish(std::move(root), path, overrides, std::move(problems));
}

RunConfig parse_run_config(const std::string& text, const std::string& source,
                           const std::vector<std::string>& overrides) {
  std::vector<yaml::Problem> problems;
  Loader loader(problems);
  yaml::Node root = loader.load_text(text, source, {});
  return finish(std::move(root), source, overrides, std::move(problems));
}

}  // namespace caravan
