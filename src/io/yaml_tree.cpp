#include "yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

namespace caravan::yaml {
namespace {

constexpr std::size_t kMaxTextBytes = 1 << 20;  // a configuration has a few kilobytes
constexpr std::size_t kMaxNodes = 20000;        // after aliases are unfolded

std::size_t count_nodes(const Node& node) {
  std::size_t count = 1;
  for (const Node& item : node.items) {
    count += count_nodes(item);
  }
  return count;
}

/// Collects parser events into a tree. Nodes that are still open lie on a stack.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string source, std::vector<Problem>& problems)
      : source_(std::move(source)), problems_(problems) {}

  Node take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    complete(make(Node::Kind::kNull, mark, "?"), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      throw YAML::ParserException(mark, "an alias to something that holds the alias itself");
    }
    Node copy = found->second;
    copy.place = place(mark);
    count(count_nodes(copy), mark);
    complete(std::move(copy), 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = make(Node::Kind::kScalar, mark, tag);
    node.text = value;
    node.is_quoted = tag == "!";
    complete(std::move(node), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open_.push_back({make(Node::Kind::kList, mark, tag), anchor, false, false, {}, {}});
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open_.push_back({make(Node::Kind::kMap, mark, tag), anchor, false, false, {}, {}});
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Node node;
    YAML::anchor_t anchor = 0;
    bool has_key = false;  // a map's next node is the value of `key`
    bool is_key_wrong = false;
    std::string key;
    Place key_place;
  };

  Place place(const YAML::Mark& mark) const { return Place(source_, mark.line + 1, mark.column + 1); }

  void count(std::size_t nodes, const YAML::Mark& mark) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes) {
      throw YAML::ParserException(
          mark, fmt::format("more than {} values, aliases unfolded; this is no configuration", kMaxNodes));
    }
  }

  Node make(Node::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    count(1, mark);
    if (!tag.empty() && tag != "?" && tag != "!") {
      problems_.emplace_back(place(mark), fmt::format("the tag {} has no meaning here; leave it out", tag));
    }
    Node node;
    node.kind = kind;
    node.place = place(mark);
    return node;
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    complete(std::move(done.node), done.anchor);
  }

  void complete(Node&& node, YAML::anchor_t anchor) {
    if (anchor != 0) {
      // The copy counts as well: anchors inside anchors would otherwise multiply memory.
      count(count_nodes(node), YAML::Mark::null_mark());
      anchors_[anchor] = node;
    }
    if (open_.empty()) {
      root_ = std::move(node);
    } else if (open_.back().node.kind == Node::Kind::kList) {
      open_.back().node.items.push_back(std::move(node));
    } else if (!open_.back().has_key) {
      take_key(open_.back(), node);
    } else {
      add_to_map(open_.back(), std::move(node));
    }
  }

  void take_key(Open& map, const Node& node) {
    map.has_key = true;
    map.is_key_wrong = node.kind != Node::Kind::kScalar;
    if (map.is_key_wrong) {
      problems_.emplace_back(node.place,
                             fmt::format("a key must be a word, here stands {}", node.describe()));
    }
    map.key = node.text;
    map.key_place = node.place;
  }

  void add_to_map(Open& map, Node&& value) {
    map.has_key = false;
    if (map.is_key_wrong) {
      return;
    }
    if (const Node* earlier = map.node.find(map.key)) {
      problems_.emplace_back(map.key_place, fmt::format("{}: given twice, first in line {}; remove one",
                                                        map.key, earlier->key_place.line));
      return;
    }
    value.key = std::move(map.key);
    value.key_place = std::move(map.key_place);
    map.node.items.push_back(std::move(value));
  }

  std::string source_;
  std::vector<Problem>& problems_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, Node> anchors_;
  std::size_t nodes_ = 0;
  Node root_;
};

}  // namespace

std::string Place::str() const {
  return line == 0 ? source : fmt::format("{}:{}:{}", source, line, column);
}

const Node* Node::find(const std::string& wanted) const {
  const auto at =
      std::find_if(items.begin(), items.end(), [&](const Node& item) { return item.key == wanted; });
  return kind == Kind::kMap && at != items.end() ? &*at : nullptr;
}

Node* Node::find(const std::string& wanted) {
  return const_cast<Node*>(std::as_const(*this).find(wanted));
}

std::string Node::describe() const {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a section";
    case Kind::kScalar:
      break;
  }
  constexpr std::size_t kShown = 60;
  std::string shown = text.substr(0, kShown) + (text.size() > kShown ? "..." : "");
  std::replace_if(
      shown.begin(), shown.end(), [](char letter) { return static_cast<unsigned char>(letter) < 0x20; }, ' ');
  return is_quoted ? fmt::format("\"{}\"", shown) : shown;
}

Node parse(const std::string& text, const std::string& source, std::vector<Problem>& problems) {
  if (text.size() > kMaxTextBytes) {
    problems.emplace_back(
        Place(source),
        fmt::format("has {} bytes; a configuration has at most {}", text.size(), kMaxTextBytes), true);
    return {};
  }
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    TreeBuilder builder(source, problems);
    parser.HandleNextDocument(builder);
    std::vector<Problem> ignored;
    TreeBuilder second(source, ignored);
    if (parser.HandleNextDocument(second)) {
      problems.emplace_back(Place(source), "holds more than one YAML document; only one is read");
    }
    return builder.take_root();
  } catch (const YAML::ParserException& error) {
    const bool has_mark = !error.mark.is_null();
    problems.emplace_back(
        Place(source, has_mark ? error.mark.line + 1 : 0, has_mark ? error.mark.column + 1 : 0),
        fmt::format("is not YAML: {}", error.msg), true);
  } catch (const YAML::Exception& error) {
    problems.emplace_back(Place(source), fmt::format("is not YAML: {}", error.what()), true);
  }
  return {};
}

void merge(Node& lower, Node&& upper) {
  if (lower.kind == Node::Kind::kMap && upper.kind == Node::Kind::kNull) {
    return;
  }
  if (lower.kind != Node::Kind::kMap || upper.kind != Node::Kind::kMap) {
    lower = std::move(upper);
    return;
  }
  for (Node& item : upper.items) {
    if (Node* below = lower.find(item.key)) {
      merge(*below, std::move(item));
    } else {
      lower.items.push_back(std::move(item));
    }
  }
  lower.place = std::move(upper.place);
  lower.key_place = std::move(upper.key_place);
}

}  // namespace caravan::yaml
