#include <bit>
#include <limits>
#include <string_view>

#include "caravan/core/error.h"
#include "caravan/core/narrow.h"
#include "caravan/io/pickle.h"
#include "little_endian.h"
#include "pickle_opcodes.h"

namespace caravan {
namespace {

constexpr std::size_t kItemsPerBatch = 1000;  // as Python's pickler; readers need not hold more on the stack

std::string_view storage_class(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return "BFloat16Storage";
    case DType::kFloat16:
      return "HalfStorage";
    case DType::kFloat32:
      return "FloatStorage";
    case DType::kFloat64:
      return "DoubleStorage";
    case DType::kInt64:
      return "LongStorage";
    case DType::kInt32:
      return "IntStorage";
    case DType::kInt16:
      return "ShortStorage";
    case DType::kInt8:
      return "CharStorage";
    case DType::kUInt8:
      return "ByteStorage";
    case DType::kBool:
      return "BoolStorage";
    case DType::kComplex128:
      break;
  }
  throw InternalError("a tensor dict holds no complex tensors");
}

class Pickler {
 public:
  std::string run(const std::vector<PickledTensor>& tensors) {
    op(Opcode::kProto);
    out_.push_back('\x02');
    op(Opcode::kEmptyDict);
    for (std::size_t i = 0; i < tensors.size(); i += kItemsPerBatch) {
      op(Opcode::kMark);
      for (std::size_t j = i; j < std::min(i + kItemsPerBatch, tensors.size()); ++j) {
        string(tensors[j].name);
        tensor(tensors[j]);
      }
      op(Opcode::kSetItems);
    }
    op(Opcode::kStop);
    return std::move(out_);
  }

 private:
  void op(Opcode opcode) { out_.push_back(static_cast<char>(opcode)); }
  void string(std::string_view text) {
    op(Opcode::kBinUnicode);
    append_little_endian(out_, narrow<std::uint32_t>(text.size()));
    out_ += text;
  }
  void global(std::string_view module, std::string_view name) {
    op(Opcode::kGlobal);
    out_ += fmt::format("{}\n{}\n", module, name);
  }
  void integer(std::int64_t value) {
    if (value >= 0 && value < 0x100) {
      op(Opcode::kBinInt1);
      append_little_endian(out_, static_cast<std::uint8_t>(value));
    } else if (value >= 0 && value < 0x10000) {
      op(Opcode::kBinInt2);
      append_little_endian(out_, static_cast<std::uint16_t>(value));
    } else if (std::in_range<std::int32_t>(value)) {
      op(Opcode::kBinInt);
      append_little_endian(out_, static_cast<std::uint32_t>(value));
    } else {
      op(Opcode::kLong1);
      out_.push_back('\x08');
      append_little_endian(out_, static_cast<std::uint64_t>(value));
    }
  }
  void integers(const std::vector<std::int64_t>& values) {
    op(Opcode::kMark);
    for (const std::int64_t value : values) {
      integer(value);
    }
    op(Opcode::kTuple);
  }
  void tensor(const PickledTensor& tensor) {
    global("torch._utils", "_rebuild_tensor_v2");
    op(Opcode::kMark);
    op(Opcode::kMark);
    string("storage");
    global("torch", storage_class(tensor.dtype));
    string(tensor.storage_key);
    string("cpu");
    integer(tensor.storage_numel);
    op(Opcode::kTuple);
    op(Opcode::kBinPersId);
    integer(tensor.storage_offset);
    integers(tensor.shape);
    integers(tensor.strides);
    op(Opcode::kNewFalse);
    global("collections", "OrderedDict");
    op(Opcode::kEmptyTuple);
    op(Opcode::kReduce);
    op(Opcode::kTuple);
    op(Opcode::kReduce);
  }

  std::string out_;
};

}  // namespace

std::string write_tensor_dict(const std::vector<PickledTensor>& tensors) {
  return Pickler().run(tensors);
}

}  // namespace caravan
