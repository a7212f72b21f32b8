#include "caravan/io/torch_file.h"

#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "caravan/io/zip_writer.h"
#include "support/checkpoints.h"
#include "support/data_files.h"
#include "support/pickle_bytes.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

using Members = std::vector<std::pair<std::string, std::string>>;

void write_zip(const std::string& path, const Members& members) {
  OutputFile file(path);
  ZipWriter zip(file);
  for (const auto& [name, text] : members) {
    zip.add(name, text);
  }
  zip.finish();
  file.commit();
}

/// A good file of one float32 tensor "w" of shape [2, 4]; a test changes a member.
Members good_members() {
  return {{"r/data.pkl", pickle_dict("w", TensorPickle().str())},
          {"r/byteorder", "little"},
          {"r/data/0", std::string(32, 'f')},
          {"r/version", "3\n"}};
}

std::string refusal(const Members& members) {
  const TemporaryFolder folder;
  write_zip(folder / "a.pth", members);
  return message_of<IoError>([&] { read_torch_file(folder / "a.pth"); });
}

std::string refusal_with(std::size_t member, const std::string& name, const std::string& content) {
  Members members = good_members();
  members[member] = {name, content};
  return refusal(members);
}

}  // namespace

TEST_CASE("a file of torch.save is read whatever its top folder is called", "[io][torch_file]") {
  CHECK(refusal(good_members()).empty());
  Members members = good_members();
  for (auto& [name, content] : members) {
    name.replace(0, 1, "archive");
  }
  members.emplace_back("archive/.format_version", "1");
  members.emplace_back("archive/.data/serialization_id", "123");
  CHECK(refusal(members).empty());
}

TEST_CASE("other containers are refused by what they are", "[io][torch_file]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& content) {
    write_text(folder / "a.pth", content);
    return message_of<IoError>([&] { read_torch_file(folder / "a.pth"); });
  };
  CHECK_THAT(refused(bytes("\x80\x02\x8A\x0Al\xFC\x9C\x46\xF9 legacy")), Catch::Contains("before 1.6"));
  CHECK_THAT(refused("PYTORCH1 and more"), Catch::Contains("PYTORCH1"));
  CHECK_THAT(refused(""), Catch::Contains("not a PyTorch ZIP"));
  CHECK_THAT(refused("PK\x03\x04"), Catch::Contains("no end record"));
  CHECK_THAT(message_of<IoError>([&] { read_torch_file(folder / "absent"); }),
             Catch::Contains("No such file"));
  CHECK_THAT(message_of<IoError>([&] { read_torch_file(folder.path().string()); }),
             Catch::Contains("regular file"));
}

TEST_CASE("archives that torch.save does not write are refused", "[io][torch_file]") {
  Members members = good_members();
  members.emplace_back("other/x", "");
  CHECK_THAT(refusal(members), Catch::Contains("'other/x' is outside"));
  CHECK_THAT(refusal({{"data.pkl", ""}}), Catch::Contains("outside"));
  members = good_members();
  members.emplace_back("r/constants.pkl", "");
  CHECK_THAT(refusal(members), Catch::Contains("TorchScript"));
  members.back().first = "r/code/__torch__.py";
  CHECK_THAT(refusal(members), Catch::Contains("TorchScript"));
  CHECK_THAT(refusal_with(0, "r/x", ""), Catch::Contains("'data.pkl' is missing"));
  CHECK_THAT(refusal_with(1, "r/byteorder", "big"), Catch::Contains("'big'"));
  CHECK_THAT(refusal_with(3, "r/x", ""), Catch::Contains("'version' is missing"));
  CHECK_THAT(refusal_with(3, "r/version", "1\n"), Catch::Contains("version '1'"));
  CHECK_THAT(refusal_with(3, "r/version", "11\n"), Catch::Contains("version '11'"));
  CHECK_THAT(refusal_with(3, "r/version", std::string(100, '3')), Catch::Contains("at most 16"));
  CHECK(refusal_with(3, "r/version", "10").empty());
}

TEST_CASE("storages must be there and have the size the pickle says", "[io][torch_file]") {
  CHECK_THAT(refusal_with(2, "r/data/1", std::string(32, 'f')),
             Catch::Contains("storage 0, which is missing"));
  for (const std::size_t size : {0U, 31U, 33U, 36U}) {
    CHECK_THAT(refusal_with(2, "r/data/0", std::string(size, 'f')),
               Catch::Contains("not 8 elements of float32"));
  }
}

TEST_CASE("tensors that share a storage are read from their own places", "[io][torch_file]") {
  const TemporaryFolder folder;
  std::string storage;
  for (int i = 0; i < 8; ++i) {
    const float value = static_cast<float>(i);
    storage.append(reinterpret_cast<const char*>(&value), 4);
  }
  TensorPickle lower;
  lower.offset = pickle_int(4);
  lower.size = pickle_ints({2, 2});
  lower.stride = pickle_ints({1, 2});  // transposed
  Members members = good_members();
  members[2].second = storage;
  members[0].second = std::string("\x80\x02}(").append(pickle_text("all")) + TensorPickle().str() +
                      pickle_text("lower") + lower.str() + "u.";
  write_zip(folder / "a.pth", members);
  const auto tensors = read_torch_file(folder / "a.pth");
  REQUIRE(tensors.size() == 2);
  std::vector<float> values(4);
  read_region(tensors[1], {{0, 2}, {0, 2}}, TensorView(values.data(), DType::kFloat32, {2, 2}));
  CHECK(values == std::vector<float>{4, 6, 5, 7});
  CHECK_FALSE(is_same_memory(tensors[0], tensors[1]));
}

TEST_CASE("a written file reads back, shared storages as one", "[io][torch_file]") {
  const TemporaryFolder folder;
  const ModelConfig config = model_preset("tiny").value();
  const auto sources = numbered_sources(config);
  write_torch_file(folder / "a.pth", sources, {{"again", "norm.weight"}});
  const auto tensors = read_torch_file(folder / "a.pth");
  REQUIRE(tensors.size() == sources.size() + 1);
  for (std::size_t i = 0; i < sources.size(); ++i) {
    CHECK(tensors[i].name == sources[i].name);
    const Shape shape = tensors[i].checked_shape();
    REQUIRE(shape == sources[i].shape);
    CHECK(tensors[i].offset_bytes % 64 == 0);
    std::vector<float> expected(static_cast<std::size_t>(shape.numel()));
    std::vector<float> values(expected.size());
    sources[i].read_rows(0, shape[0], reinterpret_cast<std::byte*>(expected.data()));
    read_region(tensors[i], full_region(shape), TensorView(values.data(), DType::kFloat32, shape));
    CHECK(values == expected);
  }
  CHECK(tensors.back().name == "again");
}
