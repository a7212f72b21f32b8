#include "caravan/io/checkpoint_manifest.h"

#include <catch2/catch.hpp>
#include <functional>
#include <random>
#include <stdexcept>

#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "support/sharded_checkpoints.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;

namespace {

CheckpointManifest sample_manifest() {
  const TemporaryFolder folder;
  return read_manifest(test::write_sample(folder.path().string()));
}

/// The text with its own checksum made right again: what somebody with bad intentions would write.
std::string sealed(const std::string& text) {
  constexpr std::size_t kHead = 33;  // {"checksum": "0123456789abcdef",\n
  return "{\"checksum\": \"" + checksum_text(checksum_of(text.substr(kHead))) + "\",\n" + text.substr(kHead);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

GlobalTensor& tensor_of(CheckpointTables& tables, const std::string& name) {
  for (GlobalTensor& tensor : tables.tensors) {
    if (tensor.name == name) {
      return tensor;
    }
  }
  throw std::runtime_error("no tensor " + name);
}

std::string after(const std::function<void(CheckpointManifest&)>& change) {
  CheckpointManifest manifest = sample_manifest();
  change(manifest);
  return manifest_text(manifest);
}

}  // namespace

TEST_CASE("a manifest is read back as it was written", "[io][manifest]") {
  const TemporaryFolder folder;
  const CheckpointManifest manifest = sample_manifest();
  CHECK(manifest.id == "0123456789abcdef");
  CHECK(manifest.tables.files.size() == 4);
  write_manifest(folder.path().string(), manifest);
  CHECK(has_manifest(folder.path().string()));
  CHECK(read_manifest(folder.path().string()) == manifest);
}

TEST_CASE("a manifest is JSON whose first key is the checksum of what follows", "[io][manifest]") {
  const std::string text = manifest_text(sample_manifest());
  CHECK(text.starts_with("{\"checksum\": \""));
  CHECK(sealed(text) == text);
  CHECK(text.ends_with("]}\n"));
}

TEST_CASE("texts that are no UTF-8 do not stop a checkpoint", "[io][manifest]") {
  const std::string text = after([](CheckpointManifest& m) { m.state.config = "tokenizer: caf\xe9"; });
  CHECK(parse_manifest(text, "m").state.config == "tokenizer: caf\xef\xbf\xbd");
}

TEST_CASE("a manifest that breaks a rule is refused with the reason", "[io][manifest]") {
  using Tables = CheckpointTables;
  const auto refuses = [](const std::function<void(CheckpointManifest&)>& change, const std::string& words) {
    CHECK_THROWS_WITH(parse_manifest(after(change), "there/manifest.json"),
                      Catch::StartsWith("there/manifest.json: ") && Catch::Contains(words));
  };
  const auto tables = [&](const std::function<void(Tables&)>& change, const std::string& words) {
    refuses([&](CheckpointManifest& m) { change(m.tables); }, words);
  };
  refuses([](CheckpointManifest& m) { m.id = "run 1"; }, "'id' is not 16 hexadecimal digits");
  refuses([](CheckpointManifest& m) { m.state.step = -1; }, "state: 'step' is missing or less than 0");
  refuses([](CheckpointManifest& m) { m.state.ranks = 0; }, "'ranks' is missing or less than 1");
  tables([](Tables& t) { t.tensors[0].name.clear(); }, "a name of 0 bytes");
  tables([](Tables& t) { t.tensors[0].name = "a\x1B[2J"; }, "with control characters: 'a\\x1B[2J'");
  tables([](Tables& t) { t.tensors[0].name = t.tensors[1].name; }, "is listed twice");
  tables(
      [](Tables& t) {
        t.tensors[0].shape = {std::int64_t{1} << 40, std::int64_t{1} << 40};
      },
      "of shape [1099511627776, 1099511627776] is impossibly large");
  tables(
      [](Tables& t) {
        tensor_of(t, "nothing").shape = {0, std::int64_t{1} << 62, 8};
      },
      "impossibly large");
  tables(
      [](Tables& t) {
        tensor_of(t, "layers.0.attention.wo.weight").shape = {6, 18};
      },
      "only 102 of 108 elements are there");
  tables(
      [](Tables& t) {
        tensor_of(t, "layers.0.attention.wo.weight").shape = {6, 16};
      },
      "is no part of tensor");
  for (const char* name :
       {"../shard_00000.safetensors", "/etc/passwd", "", "shard_0.safetensors", "shard_00001.safetensors",
        "shard_-0001.safetensors", "shard_99999999999999999999.safetensors"}) {
    tables([&](Tables& t) { t.files[0].name = name; }, "manifest.json: ");
  }
  tables([](Tables& t) { t.files[0].name = "../x"; }, "'../x' is no name of a shard, like shard_00000");
  tables([](Tables& t) { t.files[0].name = "\x1B[2J" + std::string(3000, 'x'); },
         "'\\x1B[2J" + std::string(76, 'x') + "...' is no name of a shard");
  tables([](Tables& t) { t.files[0].header_bytes = 0; }, "with a header of 0");
  tables([](Tables& t) { t.files[0].header_bytes += 8; }, "a piece begins at byte");
  tables([](Tables& t) { t.files[0].bytes += 8; }, "the pieces in shard_00000.safetensors end at byte");
  tables([](Tables& t) { t.files[0].bytes = 5; }, "has 5 bytes with a header of");
  tables([](Tables& t) { t.pieces[0].tensor = 99; }, "a piece of tensor 99 in file 0");
  tables([](Tables& t) { t.pieces[0].file = 4; }, "in file 4 where there are 9 tensors and 4 files");
  tables([](Tables& t) { t.pieces[0].region = {{0, 1}}; }, "[0:1] is no part of tensor");
  tables([](Tables& t) { t.pieces[0].region[0] = {2, 2}; }, "is no part of tensor");
  tables([](Tables& t) { t.pieces[0].end -= 8; }, "bytes and lies at");
  tables([](Tables& t) { t.pieces.pop_back(); }, "end at byte");
  tables([](Tables& t) { t.pieces.push_back(t.pieces.front()); }, "a piece begins at byte");
  tables(
      [](Tables& t) {
        t.files.resize(1);
        std::erase_if(t.pieces, [](const CheckpointPiece& piece) { return piece.file > 0; });
      },
      "elements are there");
}

TEST_CASE("pieces that overlap are refused although the numbers add up", "[io][manifest]") {
  CheckpointManifest manifest = sample_manifest();
  auto& pieces = manifest.tables.pieces;
  const auto of_cube = [&](std::size_t skip) {
    for (CheckpointPiece& piece : pieces) {
      if (manifest.tables.tensors[static_cast<std::size_t>(piece.tensor)].name ==
              "optimizer.exp_avg_sq.cube" &&
          skip-- == 0) {
        return &piece;
      }
    }
    return static_cast<CheckpointPiece*>(nullptr);
  };
  // The ranks' parts along dim 1 are [4:7], [2:4], [0:2] and nothing.
  of_cube(2)->region[1] = {1, 3};
  CHECK_THROWS_WITH(parse_manifest(manifest_text(manifest), "m"), Catch::Contains("overlap"));
}

TEST_CASE("text that is no manifest is refused", "[io][manifest]") {
  const std::string good = manifest_text(sample_manifest());
  const auto refuses = [](const std::string& text, const std::string& words) {
    CHECK_THROWS_WITH(parse_manifest(text, "m"), Catch::Contains(words));
  };
  refuses("", "does not begin with its checksum");
  refuses("{}", "does not begin with its checksum");
  refuses(good.substr(1), "does not begin with its checksum");
  refuses(replaced(good, "\"step\": 100", "\"step\": 101"), "is damaged or cut short: its checksum is");
  refuses(sealed(replaced(good, "caravan training checkpoint", "caravan wedding cake")), "is no manifest");
  refuses(sealed(replaced(good, "\"format_version\": 1", "\"format_version\": 2")),
          "format_version is 2; this Caravan reads version 1");
  refuses(sealed(replaced(good, "\"step\": 100", "\"step\": 1e2")), "'step' is");
  refuses(sealed(replaced(good, "\"step\": 100", "\"step\": 99999999999999999999")), "m: ");
  refuses(sealed(replaced(good, "\"pieces\"", "\"slices\"")), "has no list 'pieces'");
  refuses(sealed(replaced(good, "\"F32\", [13, 6]]", "\"F99\", [13, 6]]")), "\"F99\" is no dtype");
  refuses(sealed(replaced(good, "\"F32\", [13, 6]]", "\"F32\", [13, -6]]")), "-6 where a whole number");
  refuses(sealed(replaced(good, "\"F32\", [13, 6]]", "\"F32\", [13, 6.5]]")), "6.5 where a whole number");
  refuses(sealed(replaced(good, "\"F32\", [13, 6]]", "\"F32\", [1, 1, 1, 13, 6]]")), "a list of at most 4");
  refuses(sealed(good + std::string(100, '[')), "is not valid JSON");
  refuses(sealed(replaced(good, "\"pieces\": [", "\"pieces\": [" + std::string(100, '['))), "nested deeper");
}

TEST_CASE("random damage under a right checksum never does more than throw", "[io][manifest]") {
  const std::string good = manifest_text(sample_manifest());
  std::mt19937_64 random(20240607);
  INFO("seed 20240607");
  const std::string alphabet = "[]{}\",:0123456789-.eE \n\\au";
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < changes; ++i) {
      const std::size_t at = 34 + random() % (text.size() - 40);
      switch (random() % 3) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.erase(at, 1 + random() % 20);
          break;
        default:
          text.insert(at, text.substr(34 + random() % (text.size() - 40), random() % 40));
      }
    }
    try {
      parse_manifest(sealed(text), "m");
    } catch (const IoError&) {
      continue;  // anything else ends the test
    }
  }
}

TEST_CASE("a manifest with very many pieces is checked in a moment", "[io][manifest]") {
  CheckpointManifest manifest;
  manifest.id = "0123456789abcdef";
  constexpr std::int64_t kSide = 300;
  manifest.tables.tensors = {{"a", {kSide * 2, kSide * 3}, DType::kUInt8}};
  manifest.tables.files = {{.name = "shard_00000.safetensors", .bytes = 16, .header_bytes = 16}};
  for (std::int64_t i = 0; i < kSide; ++i) {
    for (std::int64_t j = 0; j < kSide; ++j) {
      std::int64_t& end = manifest.tables.files[0].bytes;
      manifest.tables.pieces.push_back({.tensor = 0,
                                        .file = 0,
                                        .region = {{i * 2, i * 2 + 2}, {j * 3, j * 3 + 3}},
                                        .begin = end,
                                        .end = end + 6});
      end += 6;
    }
  }
  CHECK(parse_manifest(manifest_text(manifest), "m") == manifest);
  manifest.tables.pieces[777].region[1].begin += 1;
  manifest.tables.pieces[777].region[1].end += 1;
  CHECK_THROWS_WITH(parse_manifest(manifest_text(manifest), "m"), Catch::Contains("overlap"));
}
