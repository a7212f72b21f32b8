// Worked examples of docs/derivations: the pages are read, so their numbers are the expected values.
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace caravan::test {

/// The block after `<!-- checked: name -->` of docs/derivations/<page>: lines "x = 1 1/2 2*ln(2)" (exact, to
/// 1e-12) or "x ≈ 0.5" (half a unit of the last digit printed). Everything wrong with the block fails the
/// test.
class WorkedExample {
 public:
  WorkedExample(const std::string& page, const std::string& name);

  const std::vector<double>& values(const std::string& name);
  double value(const std::string& name);
  /// The page's values of `name` equal those the code gave.
  void check(const std::string& name, std::span<const double> computed);
  void check(const std::string& name, double computed) { check(name, std::span(&computed, 1)); }
  /// No line of the block was left unread.
  void check_all_used() const;

 private:
  struct Line {
    std::vector<double> values;
    std::vector<double> tolerances;
  };
  const Line& line(const std::string& name);

  std::string title_;
  std::map<std::string, Line> lines_;
  std::set<std::string> used_;
};

}  // namespace caravan::test
