#include "caravan/io/sharded_checkpoint_reader.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "support/sharded_checkpoints.h"
#include "support/temporary_folder.h"

using namespace caravan;
using caravan::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

std::vector<std::byte> read_bytes(ShardedCheckpointReader& reader, const GlobalTensor& tensor,
                                  const Region& region) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(region_shape(region).numel()) *
                               dtype_bytes(tensor.dtype));
  reader.read(tensor.name, region, TensorView(bytes.data(), tensor.dtype, region_shape(region)));
  return bytes;
}

/// Every region of a small tensor.
std::vector<Region> all_regions(const Shape& shape) {
  std::vector<Region> regions = {{}};
  for (int dim = 0; dim < shape.rank(); ++dim) {
    std::vector<Region> longer;
    for (const Region& region : regions) {
      for (std::int64_t begin = 0; begin <= shape[dim]; ++begin) {
        for (std::int64_t end = begin; end <= shape[dim]; ++end) {
          longer.push_back(region);
          longer.back().push_back({begin, end});
        }
      }
    }
    regions = std::move(longer);
  }
  return regions;
}

/// Overwrites in place: file systems flush files that were truncated first, which takes its time.
void patch(const std::string& path, std::size_t at, std::string_view bytes) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(static_cast<std::streamoff>(at));
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  REQUIRE(file.flush());
}

void flip_bit(const std::string& path, std::size_t byte, int bit) {
  const std::string text = test::read_text(path);
  const char flipped =
      static_cast<char>(static_cast<unsigned char>(text[byte]) ^ (1U << static_cast<unsigned>(bit)));
  patch(path, byte, {&flipped, 1});
}

}  // namespace

TEST_CASE("what four ranks wrote is read by one, two, three and five", "[io][sharded]") {
  const TemporaryFolder folder;
  for (const std::int64_t max_piece_bytes : {std::int64_t{1} << 20U, std::int64_t{60}, std::int64_t{1}}) {
    const std::string path = test::write_sample(folder.path().string(), {.max_piece_bytes = max_piece_bytes});
    for (const std::int64_t ranks : {1, 2, 3, 4, 5}) {
      CAPTURE(max_piece_bytes, ranks);
      ShardedCheckpointReader fresh(path);
      CHECK(test::holds_sample(fresh, ranks));
      ShardedCheckpointReader verified(path);
      verified.verify();
      CHECK(test::holds_sample(verified, ranks));
      CHECK(test::holds_sample(verified, ranks));
    }
  }
}

TEST_CASE("any number of ranks writes what any number reads", "[io][sharded]") {
  for (const std::int64_t writers : {1, 2, 3, 7}) {
    const TemporaryFolder folder;
    const std::string path = test::write_sample(folder.path().string(), {.ranks = writers});
    for (const std::int64_t readers : {1, 4}) {
      CAPTURE(writers, readers);
      ShardedCheckpointReader reader(path);
      CHECK(test::holds_sample(reader, readers));
    }
  }
}

TEST_CASE("the scalar state is what was written", "[io][sharded]") {
  const TemporaryFolder folder;
  const ShardedCheckpointReader reader(test::write_sample(folder.path().string()));
  const TrainingState& state = reader.state();
  CHECK(state.step == 100);
  CHECK(state.optimizer_step == 99);
  CHECK(state.data_position == 3200);
  CHECK(state.random_state == "philox \"1\"");
  CHECK(state.config == "seed: 42\ndata:\n  train: \"a b\"\n");
  CHECK(state.ranks == 4);
  CHECK(state.mesh == "tp 2, dp_shard 2");
  CHECK(state.extra.at("epoch") == "3");
}

TEST_CASE("every region of a tensor has its elements, read first or later", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  ShardedCheckpointReader later(path);
  later.verify();
  for (const GlobalTensor& tensor : test::sample_tensors()) {
    if (tensor.shape.numel() > 110) {
      continue;
    }
    const std::vector<std::byte> content = test::sample_content(tensor, 100);
    for (const Region& region : all_regions(tensor.shape)) {
      const std::vector<std::byte> wanted = test::cut_out(tensor, content, region);
      CHECK(read_bytes(later, tensor, region) == wanted);
    }
  }
  const GlobalTensor cube = test::sample_tensors()[5];
  const std::vector<std::byte> content = test::sample_content(cube, 100);
  for (const Region& region : {Region{{0, 3}, {1, 6}, {2, 4}}, Region{{2, 3}, {0, 7}, {0, 5}},
                               Region{{1, 2}, {3, 4}, {4, 5}}, Region{{0, 3}, {2, 4}, {0, 5}}}) {
    ShardedCheckpointReader first(path);
    CHECK(read_bytes(first, cube, region) == test::cut_out(cube, content, region));
  }
}

TEST_CASE("rows longer than a block are read as well", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::int64_t columns = 400'000;  // 1.6 MB
  std::vector<float> values(static_cast<std::size_t>(3 * columns));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i);
  }
  ShardSource source{.tensor = {"wide", {3, columns}, DType::kFloat32},
                     .region = {{0, 3}, {0, columns}},
                     .data = reinterpret_cast<const std::byte*>(values.data()),
                     .read = {}};
  ShardedCheckpointWriter writer({"0123456789abcdef", 0, 0}, {source});
  writer.open(folder.path().string());
  write_manifest(folder.path().string(), merge_tables("0123456789abcdef", {}, {writer.write()}));
  ShardedCheckpointReader reader(folder.path().string());
  std::vector<float> read(3 * 2);
  reader.read("wide", {{0, 3}, {columns - 3, columns - 1}}, TensorView(read.data(), DType::kFloat32, {3, 2}));
  CHECK(read == std::vector<float>{399997, 399998, 799997, 799998, 1199997, 1199998});
}

TEST_CASE("a strided destination keeps what lies between", "[io][sharded]") {
  const TemporaryFolder folder;
  ShardedCheckpointReader reader(test::write_sample(folder.path().string()));
  const GlobalTensor tensor = test::sample_tensors()[0];
  std::vector<float> memory(13 * 8, -1.0F);
  const TensorView view(memory.data(), DType::kFloat32, {13, 8});
  reader.read(tensor.name, full_region(tensor.shape), view.slice(1, 1, 7));
  const std::vector<std::byte> content = test::sample_content(tensor, 100);
  for (std::size_t row = 0; row < 13; ++row) {
    CHECK(memory[row * 8] == -1.0F);
    const std::byte* read = reinterpret_cast<const std::byte*>(&memory[row * 8 + 1]);
    CHECK(std::equal(read, read + 24, content.data() + row * 24));
    CHECK(memory[row * 8 + 7] == -1.0F);
  }
}

TEST_CASE("floating tensors are converted where the destination has another dtype", "[io][sharded]") {
  const TemporaryFolder folder;
  ShardedCheckpointReader reader(test::write_sample(folder.path().string()));
  const GlobalTensor tensor = test::sample_tensors()[0];
  std::vector<double> values(13 * 6);
  reader.read(tensor.name, full_region(tensor.shape), TensorView(values.data(), DType::kFloat64, {13, 6}));
  const std::vector<std::byte> content = test::sample_content(tensor, 100);
  for (std::size_t i = 0; i < values.size(); ++i) {
    float single = 0;
    std::memcpy(&single, content.data() + 4 * i, 4);
    CHECK(values[i] == static_cast<double>(single));
  }
  std::vector<std::int32_t> whole(13 * 6);
  CHECK_THROWS_WITH(
      reader.read(tensor.name, full_region(tensor.shape), TensorView(whole.data(), DType::kInt32, {13, 6})),
      Catch::Contains("is float32 and cannot be read as int32"));
}

TEST_CASE("an unknown tensor is an error in words, a wrong region a bug", "[io][sharded]") {
  const TemporaryFolder folder;
  ShardedCheckpointReader reader(test::write_sample(folder.path().string()));
  std::vector<float> values(6);
  CHECK_THROWS_WITH(reader.read("nobody", {{0, 6}}, TensorView(values.data(), DType::kFloat32, {6})),
                    Catch::Contains("holds no tensor 'nobody'"));
  CHECK(reader.find("nobody") == nullptr);
  CHECK_THROWS_AS(reader.read("norm.weight", {{1, 7}}, TensorView(values.data(), DType::kFloat32, {6})),
                  InternalError);
  CHECK_THROWS_AS(reader.read("norm.weight", {{0, 6}}, TensorView(values.data(), DType::kFloat32, {5})),
                  InternalError);
}

TEST_CASE("the shares of a verification together look at every byte", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string(), {.max_piece_bytes = 60});
  for (const std::int64_t count : {1, 2, 3, 20}) {
    for (const char* shard : {"/shard_00000.safetensors", "/shard_00003.safetensors"}) {
      const std::string file = path + shard;
      const std::string intact = test::read_text(file);
      for (std::size_t byte = 0; byte < intact.size(); byte += 29) {
        flip_bit(file, byte, static_cast<int>(byte % 8));
        std::int64_t noticed = 0;
        for (std::int64_t index = 0; index < count; ++index) {
          ShardedCheckpointReader reader(path);
          try {
            reader.verify({index, count});
          } catch (const IoError&) {
            ++noticed;
          }
        }
        CHECK(noticed >= 1);
        patch(file, byte, intact.substr(byte, 1));
      }
    }
    ShardedCheckpointReader reader(path);
    CHECK_NOTHROW(reader.verify());
  }
}

TEST_CASE("a flipped bit in any byte of any file is noticed", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  std::size_t tried = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    const std::string file = entry.path().string();
    const std::string intact = test::read_text(file);
    for (std::size_t byte = 0; byte < intact.size(); ++byte) {
      flip_bit(file, byte, static_cast<int>((byte + tried) % 8));
      CAPTURE(file, byte);
      CHECK_THROWS_AS(ShardedCheckpointReader(path).verify(), IoError);
      ++tried;
      patch(file, byte, intact.substr(byte, 1));
    }
  }
  CHECK(tried > 5000);
  CHECK_NOTHROW(ShardedCheckpointReader(path).verify());
}

TEST_CASE("a file cut short or grown by any number of bytes is noticed", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    const std::string file = entry.path().string();
    const std::string intact = test::read_text(file);
    for (std::size_t size = 0; size < intact.size(); size += size < 300 ? 1 : 13) {
      fs::resize_file(file, size);
      CAPTURE(file, size);
      CHECK_THROWS_AS(ShardedCheckpointReader(path).verify(), IoError);
      patch(file, size, intact.substr(size));
    }
    test::write_text(file, intact + "x");
    CHECK_THROWS_AS(ShardedCheckpointReader(path).verify(), IoError);
    fs::remove(file);
    CHECK_THROWS_AS(ShardedCheckpointReader(path).verify(), IoError);
    test::write_text(file, intact);
  }
}

TEST_CASE("damage is noticed by the read that meets it, and no other", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  const std::string file = path + "/shard_00002.safetensors";
  flip_bit(file, test::read_text(file).size() - 1, 0);  // the last piece: of "half", [3:6]
  ShardedCheckpointReader reader(path);
  const GlobalTensor half = test::sample_tensors()[6];
  CHECK(read_bytes(reader, half, {{0, 3}}).size() == 3);
  CHECK(read_bytes(reader, half, {{6, 11}}).size() == 5);
  for (const Region& region : {Region{{5, 6}}, Region{{0, 11}}, Region{{3, 6}}}) {
    CHECK_THROWS_WITH(read_bytes(reader, half, region),
                      Catch::Contains("shard_00002.safetensors: bytes") &&
                          Catch::Contains("([3:6] of tensor 'half') are damaged: their checksum is"));
  }
}

TEST_CASE("a shard of another step or write is refused by name", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  const std::string shard = "/shard_00001.safetensors";
  const std::string older = test::write_sample(folder.path().string(), {.step = 50});
  const std::string other = test::write_sample(folder / "elsewhere", {.id = "fedcba9876543210"});
  const auto check = [&](const std::string& from, const std::string& words) {
    fs::copy_file(from + shard, path + shard, fs::copy_options::overwrite_existing);
    CHECK_THROWS_WITH(
        ShardedCheckpointReader(path).verify(),
        Catch::Contains("step_00000100/shard_00001.safetensors: belongs to another checkpoint (" + words));
  };
  check(older,
        "step 50, write 0123456789abcdef) than the manifest beside it (step 100, write 0123456789abcdef)");
  check(other,
        "step 100, write fedcba9876543210) than the manifest beside it (step 100, write 0123456789abcdef)");
}

TEST_CASE("two shards that changed their names are refused", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  fs::rename(path + "/shard_00001.safetensors", path + "/x");
  fs::rename(path + "/shard_00002.safetensors", path + "/shard_00001.safetensors");
  fs::rename(path + "/x", path + "/shard_00002.safetensors");
  CHECK_THROWS_AS(ShardedCheckpointReader(path).verify(), IoError);
}

TEST_CASE("what is no shard is not mistaken for one", "[io][sharded]") {
  const TemporaryFolder folder;
  const std::string path = test::write_sample(folder.path().string());
  const std::string file = path + "/shard_00000.safetensors";
  const std::size_t size = fs::file_size(file);
  for (const std::string& text : {std::string(size, '\0'), std::string(size, '{'), std::string()}) {
    test::write_text(file, text);
    CHECK_THROWS_AS(ShardedCheckpointReader(path).verify(), IoError);
  }
  fs::remove(file);
  fs::create_directory(file);
  CHECK_THROWS_WITH(ShardedCheckpointReader(path).verify(), Catch::Contains("is not a regular file"));
}
