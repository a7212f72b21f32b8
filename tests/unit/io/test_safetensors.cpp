#include "caravan/io/safetensors.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "caravan/core/error.h"
#include "support/checkpoints.h"
#include "support/data_files.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

std::string length_of(std::uint64_t length) {
  std::string text;
  for (int i = 0; i < 8; ++i) {
    text.push_back(static_cast<char>(length >> (8 * i) & 0xFFU));
  }
  return text;
}

std::string file_of(const std::string& header, std::size_t data_bytes) {
  return length_of(header.size()) + header + std::string(data_bytes, 'd');
}

std::string refusal(const std::string& content) {
  const TemporaryFolder folder;
  write_text(folder / "a.safetensors", content);
  return message_of<IoError>([&] { read_safetensors(folder / "a.safetensors"); });
}

std::string refusal(const std::string& header, std::size_t data_bytes) {
  return refusal(file_of(header, data_bytes));
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  std::int64_t begin, std::int64_t end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin,
                     end);
}

std::string header_of(const std::vector<std::string>& entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

TensorSource bytes_source(const std::string& name, const Shape& shape, DType dtype, std::string content) {
  const auto row = static_cast<std::size_t>(shape.numel() / shape[0]) * dtype_bytes(dtype);
  return {name, shape, dtype,
          [content = std::move(content), row](std::int64_t begin, std::int64_t end, std::byte* destination) {
            std::memcpy(destination, content.data() + static_cast<std::size_t>(begin) * row,
                        static_cast<std::size_t>(end - begin) * row);
          }};
}

}  // namespace

TEST_CASE("headers as other programs write them are read", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::string header =
      header_of({R"("__metadata__":{"format":"pt","x":"y"})", entry("b", "F32", "[2]", 6, 14),
                 entry("a", "BF16", "[1,3]", 0, 6), entry("scalar", "I64", "[]", 14, 22),
                 entry("none", "F16", "[0,5]", 6, 6)});
  write_text(folder / "a", file_of(header + "   ", 22));
  const auto tensors = read_safetensors(folder / "a");
  REQUIRE(tensors.size() == 4);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[0].dtype == DType::kBFloat16);
  CHECK(tensors[0].shape == std::vector<std::int64_t>{1, 3});
  CHECK(tensors[0].offset_bytes == 8 + static_cast<std::int64_t>(header.size()) + 3);
  CHECK(tensors[1].name == "none");
  CHECK(tensors[2].offset_bytes == tensors[0].offset_bytes + 6);
  CHECK(tensors[3].shape.empty());
  CHECK(refusal("{}", 0).empty());
}

TEST_CASE("impossible lengths are refused before anything is allocated", "[io][safetensors]") {
  CHECK_THAT(refusal(""), Catch::Contains("too few"));
  CHECK_THAT(refusal("1234567"), Catch::Contains("too few"));
  CHECK_THAT(refusal(length_of(100'000'001) + "{}"), Catch::Contains("impossible"));
  CHECK_THAT(refusal(length_of(3) + "{}"), Catch::Contains("impossible"));
  CHECK_THAT(refusal(length_of(~std::uint64_t{0}) + "{}"), Catch::Contains("impossible"));
}

TEST_CASE("headers of another shape are refused", "[io][safetensors]") {
  CHECK_THAT(refusal("", 0), Catch::Contains("does not begin"));
  CHECK_THAT(refusal(" {}", 0), Catch::Contains("does not begin"));
  CHECK_THAT(refusal("[]", 0), Catch::Contains("does not begin"));
  for (const std::string bad :
       {"{",
        "{}x",
        "{} {}",
        R"({"a":1})",
        R"({"a":[]})",
        R"({"a":null})",
        R"({"a":true})",
        R"({"a":"F32"})",
        R"({"a":{}})",
        R"({"a":{"dtype":"F32","shape":[1]}})",
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}})",
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})",
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})",
        R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551620]}})",
        R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":{"b":1},"data_offsets":[0,4]}})",
        R"({"__metadata__":{"a":1}})",
        R"({"__metadata__":{"a":{}}})",
        R"({"__metadata__":"a"})",
        R"({"a\u0000b":{}})",
        "{\"\xFF\":{}}"}) {
    CHECK_THAT(refusal(bad, 4), Catch::Contains("safetensors header"));
  }
  CHECK_THAT(refusal(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4),
             Catch::Contains("'a' has more than 8 dims"));
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})", 4).empty());
  CHECK_THAT(refusal(header_of({entry("a", "F8_E4M3", "[4]", 0, 4)}), 4), Catch::Contains("'F8_E4M3'"));
  CHECK_THAT(refusal(header_of({entry("a", "f32", "[1]", 0, 4)}), 4), Catch::Contains("'f32'"));
}

TEST_CASE("names, dims and quotations of a header are bounded", "[io][safetensors]") {
  CHECK(refusal(header_of({entry("a", "U8", "[1,1,1,1,1,1,1,4]", 0, 4)}), 4).empty());
  CHECK_THAT(refusal(header_of({entry("a", "U8", "[1,1,1,1,1,1,1,1,4]", 0, 4)}), 4),
             Catch::Contains("'a' has more than 8 dims"));
  CHECK_THAT(refusal(header_of({entry(R"(a\u001b[2J)", "U8", "[4]", 0, 4)}), 4),
             Catch::Contains("the name 'a\\x1B[2J' is empty, too long or holds control characters"));
  for (const std::string& text :
       {header_of({entry(std::string(100'000, 'a'), "U8", "[4]", 0, 4)}),
        header_of({entry("a", std::string(100'000, 'b'), "[4]", 0, 4)}),
        std::string("{\"").append(100'000, 'c'), std::string("{\"a\":\"").append(100'000, 'd') + "\xFF\"}"}) {
    const std::string message = refusal(text, 4);
    CHECK(!message.empty());
    CHECK(message.size() < 600);
  }
}

TEST_CASE("duplicate names and fields are refused", "[io][safetensors]") {
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[1]", 0, 4), entry("a", "F32", "[1]", 4, 8)}), 8),
             Catch::Contains("'a' occurs twice"));
  CHECK_THAT(refusal(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
             Catch::Contains("'dtype' of 'a' occurs twice"));
  CHECK_THAT(refusal(R"({"__metadata__":{"x":"1","x":"2"}})", 0), Catch::Contains("occurs twice"));
}

TEST_CASE("holes, overlaps, wrong sizes and trailing bytes are refused", "[io][safetensors]") {
  const auto a = entry("a", "F32", "[1]", 0, 4);
  CHECK(refusal(header_of({a, entry("b", "F32", "[1]", 4, 8)}), 8).empty());
  CHECK_THAT(refusal(header_of({a, entry("b", "F32", "[1]", 6, 10)}), 10),
             Catch::Contains("'b' is at bytes 6"));
  CHECK_THAT(refusal(header_of({a, entry("b", "F32", "[1]", 2, 6)}), 6),
             Catch::Contains("'b' is at bytes 2"));
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[1]", 4, 8)}), 8), Catch::Contains("'a' is at bytes 4"));
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[1]", 0, 8)}), 8),
             Catch::Contains("needs 4 bytes and has 8"));
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[0]", 0, 4)}), 4), Catch::Contains("needs 0 bytes"));
  CHECK_THAT(refusal(header_of({a}), 5), Catch::Contains("the file holds 5"));
  CHECK_THAT(refusal(header_of({a}), 3), Catch::Contains("the file holds 3"));
  CHECK_THAT(refusal("{}", 1), Catch::Contains("the file holds 1"));
}

TEST_CASE("sizes whose product overflows are refused", "[io][safetensors]") {
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[4611686018427387905]", 0, 4)}), 4),
             Catch::Contains("large"));
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[4294967296,4294967296,1]", 0, 0)}), 0),
             Catch::Contains("large"));
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[0,4611686018427387904,4]", 0, 0)}), 0),
             Catch::Contains("large"));
  CHECK_THAT(refusal(header_of({entry("a", "F32", "[9223372036854775808]", 0, 4)}), 4),
             Catch::Contains("too large"));
}

TEST_CASE("a written file is sorted, aligned and reads back", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  write_safetensors(
      path, {bytes_source("z.half", {1, 3}, DType::kFloat16, "aabbcc"),
             bytes_source("b", {2}, DType::kFloat32, "11112222"),
             bytes_source("a", {1}, DType::kFloat32, "3333"), bytes_source("c", {1}, DType::kInt8, "x")});
  const std::string content = read_text(path);
  CHECK(static_cast<unsigned char>(content[0]) % 8 == 0);
  CHECK(content.substr(8, 33) == R"({"__metadata__":{"format":"pt"},")");
  CHECK(
      content.ends_with("3333"
                        "1111"
                        "2222"
                        "aabbcc"
                        "x"));
  const auto tensors = read_safetensors(path);
  REQUIRE(tensors.size() == 4);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[2].name == "z.half");
  CHECK(tensors[2].shape == std::vector<std::int64_t>{1, 3});
  CHECK(tensors[3].dtype == DType::kInt8);
  CHECK(file_names(folder.path()) == std::vector<std::string>{"a.safetensors"});
}

TEST_CASE("an index and its files must agree", "[io][safetensors]") {
  const TemporaryFolder folder;
  const std::string index = folder / "model.safetensors.index.json";
  write_safetensors(folder / "one", {bytes_source("a", {1}, DType::kFloat32, "1111")});
  write_safetensors(folder / "two", {bytes_source("b", {1}, DType::kFloat32, "2222")});
  write_safetensors(folder / "both", {bytes_source("a", {1}, DType::kFloat32, "1111"),
                                      bytes_source("b", {1}, DType::kFloat32, "2222")});
  const auto with = [&](const std::string& text) {
    write_text(index, text);
    return message_of<IoError>([&] { read_sharded_safetensors(index); });
  };
  CHECK(with(R"({"metadata":{"total_size":8},"weight_map":{"a":"one","b":"two"}})").empty());
  CHECK(read_sharded_safetensors(index).size() == 2);
  CHECK_THAT(with(R"({"weight_map":{"a":"two","b":"two"}})"), Catch::Contains("'a' is not in two"));
  CHECK_THAT(with(R"({"weight_map":{"a":"one","b":"both"}})"),
             Catch::Contains("'a'") && Catch::Contains("both"));
  CHECK_THAT(with(R"({"weight_map":{"a":"both"}})"), Catch::Contains("not in the index"));
  CHECK_THAT(with(R"({"weight_map":{"a":"three"}})"),
             Catch::Contains("three") && Catch::Contains("No such file"));
  for (const std::string name : {"../one", "/one", "", "..", "x/one", "x\\\\one"}) {
    CHECK_THAT(with(R"({"weight_map":{"a":")" + name + R"("}})"), Catch::Contains("not a plain file name"));
  }
  CHECK_THAT(with(R"({"weight_map":{"a":1}})"), Catch::Contains("not a file name"));
  CHECK_THAT(with(R"({"weight_map":[]})"), Catch::Contains("no object 'weight_map'"));
  CHECK_THAT(with(R"({"weight_map":{"a":"one","a":"two"}})"), Catch::Contains("occurs twice"));
  CHECK_THAT(with(R"([])"), Catch::Contains("not an object"));
  CHECK_THAT(with(R"({)"), Catch::Contains("not valid JSON"));
  CHECK_THAT(with(R"({"a":)" + std::string(100, '[') + std::string(100, ']') + "}"),
             Catch::Contains("nested"));
}
