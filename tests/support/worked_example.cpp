#include "support/worked_example.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace caravan::test {
namespace {

constexpr double kExact = 1e-12;  // relative; the examples have a handful of roundings each
constexpr double kNearZero = 1e-15;

/// "2*ln(2)/7", "-0.5", "3": factors from left to right.
double evaluate(const std::string& text) {
  std::size_t at = 0;
  const double sign = text.starts_with('-') ? -1.0 : 1.0;
  at += text.starts_with('-') ? 1 : 0;
  double result = sign;
  char operation = '*';
  while (true) {
    const bool is_log = text.compare(at, 3, "ln(") == 0;
    at += is_log ? 3 : 0;
    std::size_t length = 0;
    double factor = std::stod(text.substr(at), &length);
    at += length;
    if (is_log) {
      REQUIRE(text.compare(at, 1, ")") == 0);
      factor = std::log(factor);
      ++at;
    }
    result = operation == '*' ? result * factor : result / factor;
    if (at == text.size()) {
      return result;
    }
    operation = text[at++];
    REQUIRE((operation == '*' || operation == '/'));
  }
}

/// Half a unit of the last digit printed.
double rounding(const std::string& text) {
  const std::size_t point = text.find('.');
  const std::size_t digits = point == std::string::npos ? 0 : text.size() - point - 1;
  return 0.5000001 * std::pow(10.0, -static_cast<double>(digits));
}

}  // namespace

WorkedExample::WorkedExample(const std::string& page, const std::string& name)
    : title_("docs/derivations/" + page + ", " + name) {
  INFO(title_);
  const char* source = std::getenv("CARAVAN_SOURCE_DIR");
  REQUIRE(source != nullptr);
  std::ifstream file(std::string(source) + "/docs/derivations/" + page);
  REQUIRE(file.good());
  std::string text;
  while (std::getline(file, text) && text != "<!-- checked: " + name + " -->") {
  }
  REQUIRE(std::getline(file, text));
  REQUIRE(text == "```");
  while (std::getline(file, text) && text != "```") {
    INFO(text);
    std::istringstream words(text);
    std::string variable;
    std::string relation;
    if (!(words >> variable)) {
      continue;
    }
    words >> relation;
    REQUIRE((relation == "=" || relation == "≈"));
    REQUIRE(lines_.count(variable) == 0);
    Line& line = lines_[variable];
    for (std::string word; words >> word;) {
      line.values.push_back(evaluate(word));
      line.tolerances.push_back(relation == "≈" ? rounding(word)
                                                : kExact * std::abs(line.values.back()) + kNearZero);
    }
    REQUIRE_FALSE(line.values.empty());
  }
  REQUIRE(text == "```");
}

const WorkedExample::Line& WorkedExample::line(const std::string& name) {
  INFO(title_ << ": " << name);
  const auto found = lines_.find(name);
  REQUIRE(found != lines_.end());
  used_.insert(name);
  return found->second;
}

const std::vector<double>& WorkedExample::values(const std::string& name) {
  return line(name).values;
}

double WorkedExample::value(const std::string& name) {
  REQUIRE(line(name).values.size() == 1);
  return line(name).values.front();
}

void WorkedExample::check(const std::string& name, std::span<const double> computed) {
  const Line& expected = line(name);
  REQUIRE(expected.values.size() == computed.size());
  for (std::size_t i = 0; i < computed.size(); ++i) {
    INFO(title_ << ": " << name << "[" << i << "] on the page "
                << Catch::StringMaker<double>::convert(expected.values[i]) << ", computed "
                << Catch::StringMaker<double>::convert(computed[i]));
    CHECK(std::abs(computed[i] - expected.values[i]) <= expected.tolerances[i]);
  }
}

void WorkedExample::check_all_used() const {
  for (const auto& [name, line] : lines_) {
    INFO(title_ << ": no check looks at " << name);
    CHECK(used_.count(name) == 1);
  }
}

}  // namespace caravan::test
