#include "caravan/io/pickle.h"

#include <catch2/catch.hpp>
#include <span>

#include "caravan/core/error.h"
#include "support/data_files.h"
#include "support/pickle_bytes.h"

using namespace caravan;
using namespace caravan::test;

namespace {

const std::string kStart = "\x80\x02";  // PROTO 2

std::vector<PickledTensor> parse(const std::string& pickle) {
  return parse_tensor_dict(std::as_bytes(std::span(pickle)), "a.pth");
}

/// The message with which a pickle is refused, "" when it is not.
std::string refusal(const std::string& pickle) {
  return message_of<IoError>([&] { parse(pickle); });
}

std::string refusal(const TensorPickle& tensor) {
  return refusal(pickle_dict("w", tensor.str()));
}

}  // namespace

TEST_CASE("a tensor dict as torch.save writes it is read", "[io][pickle]") {
  const std::string pickle = bytes(
      "\x80\x02"
      "ccollections\nOrderedDict\nq\x00)Rq\x01X\x0b\x00\x00\x00norm.weightq\x02"
      "ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04"
      "ctorch\nBFloat16Storage\nq\x05X\x01\x00\x00\x00"
      "0q\x06X\x03\x00\x00\x00"
      "cpuq\x07K\x08tq\x08QK\x00K\x02K\x04\x86q\x09K\x04K\x01\x86q\x0a\x89h\x00)Rq\x0btq\x0cRq\x0ds.");
  const auto tensors = parse(pickle);
  REQUIRE(tensors.size() == 1);
  CHECK(tensors[0].name == "norm.weight");
  CHECK(tensors[0].storage_key == "0");
  CHECK(tensors[0].dtype == DType::kBFloat16);
  CHECK(tensors[0].storage_numel == 8);
  CHECK(tensors[0].storage_offset == 0);
  CHECK(tensors[0].shape == std::vector<std::int64_t>{2, 4});
  CHECK(tensors[0].strides == std::vector<std::int64_t>{4, 1});
}

TEST_CASE("parameters, attributes and metadata of a state dict are read past", "[io][pickle]") {
  const std::string ordered = pickle_global("collections", "OrderedDict") + ")R";
  const std::string parameter = pickle_global("torch._utils", "_rebuild_parameter") + "(" +
                                TensorPickle().str() + "\x88" + ordered + "tR";
  const std::string metadata = std::string("}").append(pickle_text("_metadata")) + ordered + "sb";
  const std::string list_and_float =
      std::string("}").append(pickle_text("x")) + "](NG" + std::string(8, '\0') + "esb";
  const auto tensors =
      parse(kStart + ordered + pickle_text("w") + parameter + "s" + metadata + list_and_float + ".");
  REQUIRE(tensors.size() == 1);
  CHECK(tensors[0].name == "w");
}

TEST_CASE("every storage class has its dtype", "[io][pickle]") {
  const std::vector<std::pair<std::string, DType>> classes = {
      {"BFloat16Storage", DType::kBFloat16}, {"HalfStorage", DType::kFloat16},
      {"FloatStorage", DType::kFloat32},     {"DoubleStorage", DType::kFloat64},
      {"LongStorage", DType::kInt64},        {"IntStorage", DType::kInt32},
      {"ShortStorage", DType::kInt16},       {"CharStorage", DType::kInt8},
      {"ByteStorage", DType::kUInt8},        {"BoolStorage", DType::kBool}};
  for (const auto& [name, dtype] : classes) {
    TensorPickle tensor;
    tensor.storage_class = pickle_global("torch", name);
    CHECK(parse(pickle_dict("w", tensor.str())).at(0).dtype == dtype);
  }
}

TEST_CASE("names outside the list are refused by name and place, and nothing runs", "[io][pickle]") {
  const std::string attack = kStart + pickle_global("os", "system") + pickle_text("touch /tmp/x") + "\x85R.";
  CHECK_THAT(refusal(attack), Catch::Contains("a.pth: pickle byte 2, opcode GLOBAL: 'os.system'"));
  for (const auto& [module, name] :
       std::vector<std::pair<std::string, std::string>>{{"builtins", "eval"},
                                                        {"torch", "load"},
                                                        {"torch.storage", "UntypedStorage"},
                                                        {"collections", "defaultdict"},
                                                        {"torch", "FloatStorage "},
                                                        {"", ""}}) {
    CHECK_THAT(refusal(kStart + pickle_global(module, name) + "."), Catch::Contains(module + "." + name));
  }
  CHECK_THAT(refusal(kStart + "c" + std::string(1000, 'a')), Catch::Contains("longer than 256"));
}

TEST_CASE("opcodes outside the list are refused by name and place", "[io][pickle]") {
  const std::vector<std::pair<std::string, std::string>> opcodes = {{"i", "INST"},
                                                                    {"o", "OBJ"},
                                                                    {"\x81", "NEWOBJ"},
                                                                    {"\x82", "EXT1"},
                                                                    {"\x83", "EXT2"},
                                                                    {"\x84", "EXT4"},
                                                                    {"\x93", "STACK_GLOBAL"},
                                                                    {"\x92", "NEWOBJ_EX"},
                                                                    {"P", "PERSID"},
                                                                    {"I", "INT"},
                                                                    {"0", "POP"},
                                                                    {"2", "DUP"},
                                                                    {"\x8B", "LONG4"},
                                                                    {"\x95", "FRAME"},
                                                                    {"B", "BINBYTES"},
                                                                    {"\xFF", "0xFF"},
                                                                    {"\x80", "PROTO"}};
  for (const auto& [opcode, name] : opcodes) {
    CHECK_THAT(refusal(kStart + "N" + opcode + "s\nx\n."),
               Catch::Contains(fmt::format("pickle byte 3, opcode {}:", name)));
  }
}

TEST_CASE("other protocols, cut and trailing bytes are refused", "[io][pickle]") {
  const std::string good = pickle_dict("w", TensorPickle().str());
  REQUIRE(refusal(good).empty());
  CHECK_THAT(refusal(""), Catch::Contains("ends in the middle"));
  CHECK_THAT(refusal("}."), Catch::Contains("begins with PROTO"));
  CHECK_THAT(refusal("\x80\x04}."), Catch::Contains("protocol 4"));
  CHECK_THAT(refusal(good + "x"), Catch::Contains("1 bytes follow"));
  for (std::size_t length = 0; length < good.size(); ++length) {
    CHECK_FALSE(refusal(good.substr(0, length)).empty());
  }
}

TEST_CASE("a broken stack is refused", "[io][pickle]") {
  CHECK_THAT(refusal("\x80\x02."), Catch::Contains("nothing is on the stack"));
  CHECK_THAT(refusal("\x80\x02R."), Catch::Contains("nothing is on the stack"));
  CHECK_THAT(refusal("\x80\x02NN\x87."), Catch::Contains("3 values are wanted, 2 are"));
  CHECK_THAT(refusal("\x80\x02}N(\x85."),
             Catch::Contains("1 values are wanted, 0 are"));  // not through the mark
  CHECK_THAT(refusal("\x80\x02}Nt."), Catch::Contains("no MARK"));
  CHECK_THAT(refusal("\x80\x02}}."), Catch::Contains("1 values are left"));
  CHECK_THAT(refusal("\x80\x02}(."), Catch::Contains("nothing is on the stack"));
  CHECK_THAT(refusal("\x80\x02h\x05."), Catch::Contains("memo slot 5"));
  CHECK_THAT(refusal(bytes("\x80\x02j\x01\x00\x00\x00.")), Catch::Contains("memo slot 1"));
}

TEST_CASE("containers take only what belongs into them", "[io][pickle]") {
  CHECK_THAT(refusal("\x80\x02]NNs."), Catch::Contains("no dict"));
  CHECK_THAT(refusal("\x80\x02}(Nu."), Catch::Contains("no value"));
  CHECK_THAT(refusal("\x80\x02}Na."), Catch::Contains("no list"));
  CHECK_THAT(refusal("\x80\x02}}b."), Catch::Contains("no OrderedDict"));
  CHECK_THAT(refusal(kStart + pickle_global("collections", "OrderedDict") + ")RNb."),
             Catch::Contains("no OrderedDict"));
  CHECK_THAT(refusal(kStart + pickle_global("collections", "OrderedDict") + "N\x85R."),
             Catch::Contains("OrderedDict with 1"));
  CHECK_THAT(refusal(kStart + pickle_global("torch", "FloatStorage") + ")R."),
             Catch::Contains("storage class is called"));
  CHECK_THAT(refusal("\x80\x02N)R."), Catch::Contains("permitted name"));
}

TEST_CASE("anything but a flat dict of tensors with unique names is refused", "[io][pickle]") {
  const std::string tensor = TensorPickle().str();
  CHECK_THAT(refusal("\x80\x02]."), Catch::Contains("no dict of tensors"));
  CHECK_THAT(refusal(kStart + tensor + "."), Catch::Contains("no dict of tensors"));
  CHECK_THAT(refusal(pickle_dict("model", "}")), Catch::Contains("'model' is not a tensor"));
  CHECK_THAT(refusal(kStart + "}K\x01" + tensor + "s."), Catch::Contains("not a string"));
  CHECK_THAT(refusal(kStart + "}(" + pickle_text("w") + tensor + pickle_text("w") + tensor + "u."),
             Catch::Contains("'w' occurs twice"));
}

TEST_CASE("a persistent id must be exactly a storage", "[io][pickle]") {
  CHECK_THAT(refusal("\x80\x02NQ."), Catch::Contains("tuple of five"));
  TensorPickle tensor;
  tensor.tag = pickle_text("storages");
  CHECK_THAT(refusal(tensor), Catch::Contains("persistent id"));
  tensor = {};
  tensor.storage_class = pickle_global("collections", "OrderedDict");
  CHECK_THAT(refusal(tensor), Catch::Contains("persistent id"));
  for (const char* key : {"", "../0", "a", "0x1"}) {
    tensor = {};
    tensor.key = pickle_text(key);
    CHECK_THAT(refusal(tensor), Catch::Contains("is not a number"));
  }
  tensor = {};
  tensor.numel = pickle_int(-1);
  CHECK_THAT(refusal(tensor), Catch::Contains("-1 elements"));
}

TEST_CASE("a tensor must lie inside its storage, overflow included", "[io][pickle]") {
  const std::int64_t huge = std::int64_t{1} << 62U;
  const auto with = [](std::int64_t offset, const std::vector<std::int64_t>& size,
                       const std::vector<std::int64_t>& stride) {
    TensorPickle tensor;
    tensor.offset = pickle_int(offset);
    tensor.size = pickle_ints(size);
    tensor.stride = pickle_ints(stride);
    return refusal(tensor);
  };
  CHECK(with(0, {2, 4}, {1, 2}).empty());
  CHECK(with(4, {4}, {1}).empty());
  CHECK(with(7, {}, {}).empty());
  CHECK(with(0, {0, 9}, {9, 1}).empty());
  CHECK_THAT(with(1, {2, 4}, {4, 1}), Catch::Contains("outside its storage of 8"));
  CHECK_THAT(with(8, {}, {}), Catch::Contains("outside its storage"));
  CHECK_THAT(with(-1, {1}, {1}), Catch::Contains("outside its storage"));
  CHECK_THAT(with(0, {3, 4}, {huge, huge}), Catch::Contains("outside its storage"));
  CHECK_THAT(with(huge, {3}, {huge}), Catch::Contains("outside its storage"));
  CHECK_THAT(with(0, {huge, huge}, {0, 0}), Catch::Contains("outside its storage"));
  CHECK_THAT(with(0, {huge, huge, 0}, {0, 0, 0}), Catch::Contains("outside its storage"));
  CHECK_THAT(with(0, {2}, {4, 1}), Catch::Contains("1 sizes and 2 strides"));
  CHECK_THAT(with(0, {-2}, {1}), Catch::Contains("whole numbers"));
  CHECK_THAT(with(0, {2}, {-1}), Catch::Contains("whole numbers"));
  CHECK_THAT(with(0, std::vector<std::int64_t>(9, 1), std::vector<std::int64_t>(9, 1)),
             Catch::Contains("at most 8"));
}

TEST_CASE("a tensor that repeats few elements may be small, and never large", "[io][pickle]") {
  TensorPickle tensor;
  tensor.stride = pickle_ints({0, 1});
  tensor.size = pickle_ints({65536, 4});  // 1 MiB
  CHECK(refusal(tensor).empty());
  tensor.size = pickle_ints({65537, 4});
  CHECK_THAT(refusal(tensor), Catch::Contains("size (65537, 4) has more elements than its storage, 8;") &&
                                  Catch::Contains("save it with .contiguous()"));
  tensor.size = pickle_ints({std::int64_t{1} << 58U, 4});
  CHECK_THAT(refusal(tensor), Catch::Contains("more elements than its storage"));
}

TEST_CASE("a tensor's name is short and has no control characters", "[io][pickle]") {
  const std::string tensor = TensorPickle().str();
  CHECK(refusal(pickle_dict(std::string(512, 'a'), tensor)).empty());
  const std::string message = refusal(pickle_dict(std::string(100'000, 'a'), tensor));
  CHECK_THAT(message, Catch::Contains("tensor name 'aaa") && Catch::Contains("too long"));
  CHECK(message.size() < 300);
  CHECK_THAT(refusal(pickle_dict("a\x1B[31m", tensor)), Catch::Contains("'a\\x1B[31m'"));
  CHECK_THAT(refusal(pickle_dict("", tensor)), Catch::Contains("is empty"));
}

TEST_CASE("arguments of the wrong kind are refused", "[io][pickle]") {
  for (const auto part : {&TensorPickle::offset, &TensorPickle::size, &TensorPickle::stride,
                          &TensorPickle::requires_grad, &TensorPickle::hooks}) {
    TensorPickle tensor;
    tensor.*part = bytes("N");
    CHECK_THAT(refusal(tensor), Catch::Contains("_rebuild_tensor_v2") || Catch::Contains("tuple"));
  }
  TensorPickle tensor;
  tensor.rebuild = pickle_global("torch._utils", "_rebuild_parameter");
  CHECK_THAT(refusal(tensor), Catch::Contains("_rebuild_parameter"));
}

TEST_CASE("numbers are read in every length", "[io][pickle]") {
  const auto offset = [](const std::string& number) {
    TensorPickle tensor;
    tensor.offset = number;
    tensor.numel = pickle_int(std::int64_t{1} << 62U);
    tensor.size = pickle_ints({});
    tensor.stride = pickle_ints({});
    return parse(pickle_dict("w", tensor.str())).at(0).storage_offset;
  };
  CHECK(offset("K\xFF") == 255);
  CHECK(offset("M\xFF\xFE") == 0xFEFF);
  CHECK(offset(bytes("J\x00\x00\x01\x00")) == 0x10000);
  CHECK(offset(bytes("\x8A\x00")) == 0);
  CHECK(offset(bytes("\x8A\x05\xFF\xFF\xFF\xFF\x00")) == 0xFFFFFFFF);
  CHECK(offset(bytes("\x8A\x09\x01\x00\x00\x00\x00\x00\x00\x00\x00")) == 1);
  TensorPickle tensor;
  tensor.offset = bytes("\x8A\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01");
  CHECK_THAT(refusal(tensor), Catch::Contains("does not fit 64 bits"));
  tensor.offset = bytes("\x8A\x01\xFF");
  CHECK_THAT(refusal(tensor), Catch::Contains("at -1 reaches outside"));
}

TEST_CASE("strings are bounded valid UTF-8", "[io][pickle]") {
  CHECK(parse(pickle_dict("größe.\xF0\x9F\x98\x80", TensorPickle().str())).size() == 1);
  for (const std::string bad :
       {"\xFF", "\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "a\x80"}) {
    CHECK_THAT(refusal(pickle_dict(bad, "N")), Catch::Contains("UTF-8"));
  }
  CHECK_THAT(refusal(pickle_dict(bytes("a\0b"), "N")), Catch::Contains("zeros"));
  CHECK_THAT(refusal(pickle_dict(std::string((1U << 20U) + 1, 'a'), "N")),
             Catch::Contains("at most 1048576"));
  CHECK_THAT(refusal(bytes("\x80\x02X\xFF\xFF\xFF\xFF")), Catch::Contains("at most 1048576"));
}

TEST_CASE("depth, stack, memo and size are bounded", "[io][pickle]") {
  // A tuple in a tuple in a tuple, half a million deep: no recursion on the way in or out.
  CHECK_THAT(refusal(kStart + ")" + std::string(500'000, '\x85') + "."),
             Catch::Contains("no dict of tensors"));
  CHECK_THAT(refusal(kStart + std::string(1'000'001, 'N') + "."), Catch::Contains("on the stack"));
  CHECK_THAT(refusal(kStart + std::string(1'000'001, '(') + "."), Catch::Contains("marks"));
  CHECK_THAT(refusal(kStart + ")" + std::string(2'000'001, '\x85') + "."),
             Catch::Contains("more than 2000000 values"));
  std::string memo = "\x80\x02N";
  for (std::uint32_t slot = 0; slot <= 1'000'000; ++slot) {
    memo.push_back('r');
    for (int i = 0; i < 4; ++i) {
      memo.push_back(static_cast<char>(slot >> (8 * i) & 0xFFU));
    }
  }
  CHECK_THAT(refusal(memo + "."), Catch::Contains("memo entries"));
  CHECK_THAT(refusal(std::string((std::size_t{64} << 20U) + 1, 'N')), Catch::Contains("at most 67108864"));
}

TEST_CASE("what the writer writes the reader reads, a thousand tensors and large sizes included",
          "[io][pickle]") {
  std::vector<PickledTensor> tensors;
  for (int i = 0; i < 2345; ++i) {
    PickledTensor tensor;
    tensor.name = fmt::format("layers.{}", i);
    tensor.storage_key = std::to_string(i);
    tensor.dtype = i % 2 == 0 ? DType::kBFloat16 : DType::kFloat64;
    tensor.storage_numel = i == 7 ? std::int64_t{5'000'000'000} : 100'000 + i;
    tensor.storage_offset = i % 300;
    tensor.shape = {i == 7 ? 2'500'000'000 : 70, 2};
    tensor.strides = {2, 1};
    if (i == 7) {
      tensor.storage_offset = 0;
    }
    tensors.push_back(tensor);
  }
  const auto read = parse(write_tensor_dict(tensors));
  REQUIRE(read.size() == tensors.size());
  for (std::size_t i = 0; i < read.size(); ++i) {
    CHECK(read[i].name == tensors[i].name);
    CHECK(read[i].storage_key == tensors[i].storage_key);
    CHECK(read[i].dtype == tensors[i].dtype);
    CHECK(read[i].storage_numel == tensors[i].storage_numel);
    CHECK(read[i].storage_offset == tensors[i].storage_offset);
    CHECK(read[i].shape == tensors[i].shape);
    CHECK(read[i].strides == tensors[i].strides);
  }
}
