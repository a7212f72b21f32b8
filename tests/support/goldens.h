// The shared reference values: rows of token ids as files for a run, and the numbers a run must reproduce.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "support/shared_files.h"

namespace caravan::test {

inline nlohmann::json read_json(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// Writes the rows of tokens.json named `part` ("train" or "test") without their padding as JSONL to `path`.
inline void write_golden_rows(const std::string& folder, const std::string& part, const std::string& path) {
  const nlohmann::json tokens = read_json(folder + "/tokens.json");
  std::ofstream out(path);
  for (nlohmann::json row : tokens.at(part)) {
    while (!row.empty() && row.back() == tokens.at("pad_id")) {
      row.erase(row.size() - 1);
    }
    out << nlohmann::json{{"ids", row}}.dump() << '\n';
  }
}

}  // namespace caravan::test
