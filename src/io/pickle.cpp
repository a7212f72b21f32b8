// The interpreter: one pass over the bytes, a stack of node indices, a stack of marks and a memo.
#include "caravan/io/pickle.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "caravan/core/error.h"
#include "caravan/core/excerpt.h"
#include "caravan/core/utf8.h"
#include "little_endian.h"
#include "pickle_opcodes.h"
#include "pickle_values.h"

namespace caravan {
namespace {

constexpr std::size_t kMaxPickleBytes = std::size_t{64} << 20U;
constexpr std::size_t kMaxStringBytes = std::size_t{1} << 20U;
constexpr std::size_t kMaxStack = 1'000'000;
constexpr std::size_t kMaxMemo = 1'000'000;
constexpr std::size_t kMaxNodes = 2'000'000;  // a tensor needs about twenty; 72 bytes each
constexpr std::size_t kMaxGlobalBytes = 256;
constexpr std::size_t kMaxTensorDims = 8;
constexpr std::int64_t kMaxRepeatedBytes = std::int64_t{1} << 20U;

class Unpickler {
 public:
  Unpickler(std::span<const std::byte> pickle, const std::string& where) : pickle_(pickle), where_(where) {}

  std::vector<PickledTensor> run() {
    if (pickle_.size() > kMaxPickleBytes) {
      fail<IoError>("{}: the pickle has {} bytes; at most {} are read", where_, pickle_.size(),
                    kMaxPickleBytes);
    }
    opcode_ = static_cast<Opcode>(take_u8());
    if (opcode_ != Opcode::kProto) {
      refuse("a pickle of protocol 2 begins with PROTO");
    }
    if (const auto protocol = take_u8(); protocol != 2) {
      refuse("protocol {}; only protocol 2 is read", protocol);
    }
    do {
      at_opcode_ = at_;
      opcode_ = static_cast<Opcode>(take_u8());
      step();
    } while (opcode_ != Opcode::kStop);
    if (at_ != pickle_.size()) {
      refuse("{} bytes follow the end", pickle_.size() - at_);
    }
    const PickleIndex result = pop();
    if (!stack_.empty() || !marks_.empty()) {
      refuse("{} values are left on the stack", stack_.size());
    }
    return collect(result);
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail<IoError>("{}: pickle byte {}, opcode {}: {}", where_, at_opcode_,
                  opcode_name(static_cast<std::uint8_t>(opcode_)),
                  fmt::format(format, std::forward<Args>(args)...));
  }

  // ---- bytes
  std::span<const std::byte> take(std::size_t count) {
    if (count > pickle_.size() - at_) {
      refuse("the pickle ends in the middle, {} bytes are missing", count - (pickle_.size() - at_));
    }
    const auto bytes = pickle_.subspan(at_, count);
    at_ += count;
    return bytes;
  }
  std::uint8_t take_u8() { return static_cast<std::uint8_t>(take(1)[0]); }
  template <class T>
  T take_number() {
    return load_little_endian<T>(take(sizeof(T)), 0);
  }
  std::string take_string(std::size_t length) {
    if (length > kMaxStringBytes) {
      refuse("a string of {} bytes; at most {} are read", length, kMaxStringBytes);
    }
    const auto bytes = take(length);
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (valid_utf8_prefix(text) != text.size() || text.find('\0') != std::string::npos) {
      refuse("a string is not valid UTF-8 without zeros");
    }
    return text;
  }
  std::string take_line() {
    std::string line;
    for (char c = static_cast<char>(take_u8()); c != '\n'; c = static_cast<char>(take_u8())) {
      line.push_back(c);
      if (line.size() > kMaxGlobalBytes) {
        refuse("a name longer than {} bytes", kMaxGlobalBytes);
      }
    }
    return line;
  }

  // ---- stack
  PickleIndex make(PickleKind kind) {
    if (nodes_.size() >= kMaxNodes) {
      refuse("more than {} values", kMaxNodes);
    }
    nodes_.emplace_back().kind = kind;
    return static_cast<PickleIndex>(nodes_.size() - 1);
  }
  PickleNode& push_new(PickleKind kind) {
    const PickleIndex index = make(kind);
    push(index);
    return nodes_[index];
  }
  void push(PickleIndex index) {
    if (stack_.size() >= kMaxStack) {
      refuse("more than {} values on the stack", kMaxStack);
    }
    stack_.push_back(index);
  }
  void push_int(std::int64_t value) { push_new(PickleKind::kInt).number = value; }
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleIndex top() const {
    if (stack_.size() <= floor()) {
      refuse("nothing is on the stack");
    }
    return stack_.back();
  }
  PickleIndex pop() {
    const PickleIndex index = top();
    stack_.pop_back();
    return index;
  }
  std::vector<PickleIndex> pop_to_mark() {
    if (marks_.empty()) {
      refuse("no MARK is on the stack");
    }
    const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleIndex> values(from, stack_.end());
    stack_.erase(from, stack_.end());
    marks_.pop_back();
    return values;
  }
  const PickleNode& node(PickleIndex index) const { return nodes_[index]; }

  // ---- opcodes
  void step() {
    switch (opcode_) {
      case Opcode::kStop:
        return;
      case Opcode::kMark:
        if (marks_.size() >= kMaxStack) {
          refuse("more than {} marks", kMaxStack);
        }
        return marks_.push_back(stack_.size());
      case Opcode::kBinPut:
        return put(take_u8());
      case Opcode::kLongBinPut:
        return put(take_number<std::uint32_t>());
      case Opcode::kBinGet:
        return get(take_u8());
      case Opcode::kLongBinGet:
        return get(take_number<std::uint32_t>());
      case Opcode::kGlobal:
        return global();
      case Opcode::kBinPersId:
        return persistent_id();
      case Opcode::kReduce:
        return reduce();
      case Opcode::kBuild:
        return build();
      default:
        if (!step_literal() && !step_container()) {
          refuse("not part of a tensor dict; refused, nothing was executed");
        }
    }
  }

  bool step_literal() {
    switch (opcode_) {
      case Opcode::kNone:
        push_new(PickleKind::kNone);
        return true;
      case Opcode::kNewTrue:
      case Opcode::kNewFalse:
        push_new(PickleKind::kBool).number = opcode_ == Opcode::kNewTrue ? 1 : 0;
        return true;
      case Opcode::kBinInt:
        push_int(static_cast<std::int32_t>(take_number<std::uint32_t>()));
        return true;
      case Opcode::kBinInt1:
        push_int(take_u8());
        return true;
      case Opcode::kBinInt2:
        push_int(take_number<std::uint16_t>());
        return true;
      case Opcode::kLong1:
        push_int(take_long());
        return true;
      case Opcode::kBinFloat:
        take(8);  // no float in a tensor dict means anything to us
        push_new(PickleKind::kFloat);
        return true;
      case Opcode::kBinUnicode: {
        std::string text = take_string(take_number<std::uint32_t>());
        push_new(PickleKind::kString).text = std::move(text);
        return true;
      }
      case Opcode::kShortBinString: {
        std::string text = take_string(take_u8());
        push_new(PickleKind::kString).text = std::move(text);
        return true;
      }
      default:
        return false;
    }
  }

  bool step_container() {
    switch (opcode_) {
      case Opcode::kEmptyDict:
        push_new(PickleKind::kDict);
        return true;
      case Opcode::kEmptyList:
        push_new(PickleKind::kList);
        return true;
      case Opcode::kEmptyTuple:
        push_new(PickleKind::kTuple);
        return true;
      case Opcode::kTuple:
        push_tuple(pop_to_mark());
        return true;
      case Opcode::kTuple1:
        push_tuple(pop_several(1));
        return true;
      case Opcode::kTuple2:
        push_tuple(pop_several(2));
        return true;
      case Opcode::kTuple3:
        push_tuple(pop_several(3));
        return true;
      case Opcode::kSetItem:
        add_items(pop_several(2));
        return true;
      case Opcode::kSetItems:
        add_items(pop_to_mark());
        return true;
      case Opcode::kAppend:
        add_elements(pop_several(1));
        return true;
      case Opcode::kAppends:
        add_elements(pop_to_mark());
        return true;
      default:
        return false;
    }
  }

  /// Two's complement, little-endian, any length up to what int64 holds.
  std::int64_t take_long() {
    const auto bytes = take(take_u8());
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      const bool is_negative = !bytes.empty() && (static_cast<unsigned>(bytes.back()) & 0x80U) != 0;
      const std::uint64_t byte =
          i < bytes.size() ? static_cast<std::uint64_t>(bytes[i]) : (is_negative ? 0xFFU : 0U);
      value |= byte << (8 * i);
    }
    const auto result = static_cast<std::int64_t>(value);
    for (std::size_t i = 8; i < bytes.size(); ++i) {
      if (static_cast<unsigned>(bytes[i]) != (result < 0 ? 0xFFU : 0U)) {
        refuse("an integer of {} bytes does not fit 64 bits", bytes.size());
      }
    }
    return result;
  }

  std::vector<PickleIndex> pop_several(std::size_t count) {
    if (stack_.size() - floor() < count) {
      refuse("{} values are wanted, {} are on the stack", count, stack_.size() - floor());
    }
    const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<PickleIndex> values(from, stack_.end());
    stack_.erase(from, stack_.end());
    return values;
  }
  void push_tuple(std::vector<PickleIndex> children) {
    push_new(PickleKind::kTuple).children = std::move(children);
  }
  void add_items(const std::vector<PickleIndex>& items) {
    PickleNode& dict = nodes_[top()];
    if (dict.kind != PickleKind::kDict && dict.kind != PickleKind::kOrderedDict) {
      refuse("items are set on a value that is no dict");
    }
    if (items.size() % 2 != 0) {
      refuse("a key has no value");
    }
    dict.children.insert(dict.children.end(), items.begin(), items.end());
  }
  void add_elements(const std::vector<PickleIndex>& elements) {
    PickleNode& list = nodes_[top()];
    if (list.kind != PickleKind::kList) {
      refuse("elements are appended to a value that is no list");
    }
    list.children.insert(list.children.end(), elements.begin(), elements.end());
  }

  void put(std::uint32_t slot) {
    memo_[slot] = top();
    if (memo_.size() > kMaxMemo) {
      refuse("more than {} memo entries", kMaxMemo);
    }
  }
  void get(std::uint32_t slot) {
    const auto at = memo_.find(slot);
    if (at == memo_.end()) {
      refuse("memo slot {} was never set", slot);
    }
    push(at->second);
  }

  void global() {
    const std::string module = take_line();
    const std::string name = take_line();
    auto token = allowed_global(module, name);
    if (!token) {
      refuse("'{}.{}' is not part of a tensor dict; refused, nothing was executed", excerpt(module),
             excerpt(name));
    }
    push_new(PickleKind::kGlobal) = *std::move(token);
  }

  /// ('storage', <storage class>, key, location, elements)
  void persistent_id() {
    const PickleNode& id = node(pop());
    if (id.kind != PickleKind::kTuple || id.children.size() != 5) {
      refuse("a persistent id is not a tuple of five");
    }
    const PickleNode& tag = node(id.children[0]);
    const PickleNode& type = node(id.children[1]);
    const PickleNode& key = node(id.children[2]);
    const PickleNode& count = node(id.children[4]);
    if (tag.kind != PickleKind::kString || tag.text != "storage" || type.kind != PickleKind::kGlobal ||
        type.global != PickleGlobal::kStorageClass || key.kind != PickleKind::kString ||
        node(id.children[3]).kind != PickleKind::kString || count.kind != PickleKind::kInt) {
      refuse("a persistent id is not ('storage', class, key, location, elements)");
    }
    const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
    constexpr std::size_t kMaxKeyDigits = 20;  // a longer one would be copied into every tensor that names it
    if (key.text.empty() || key.text.size() > kMaxKeyDigits ||
        !std::all_of(key.text.begin(), key.text.end(), is_digit)) {
      refuse("storage key '{}' is not a number of at most {} digits", excerpt(key.text, 40), kMaxKeyDigits);
    }
    if (count.number < 0) {
      refuse("storage {} has {} elements", key.text, count.number);
    }
    PickleNode storage;
    storage.kind = PickleKind::kStorage;
    storage.dtype = type.dtype;
    storage.text = key.text;
    storage.number = count.number;
    push_new(PickleKind::kStorage) = std::move(storage);
  }

  void reduce() {
    const PickleIndex arguments = pop();
    const PickleNode& callable = node(pop());
    if (node(arguments).kind != PickleKind::kTuple || callable.kind != PickleKind::kGlobal) {
      refuse("a call needs a permitted name and a tuple");
    }
    const std::vector<PickleIndex> values = node(arguments).children;
    switch (callable.global) {
      case PickleGlobal::kOrderedDict:
        if (!values.empty()) {
          refuse("OrderedDict with {} arguments", values.size());
        }
        push_new(PickleKind::kOrderedDict);
        return;
      case PickleGlobal::kRebuildTensor:
        return rebuild_tensor(values);
      case PickleGlobal::kRebuildParameter:
        if (values.size() != 3 || node(values[0]).kind != PickleKind::kTensor) {
          refuse("_rebuild_parameter takes (tensor, requires_grad, hooks)");
        }
        return push(values[0]);
      case PickleGlobal::kStorageClass:
        refuse("a storage class is called");
    }
  }

  std::vector<std::int64_t> sizes(PickleIndex index, std::string_view what) const {
    const PickleNode& tuple = node(index);
    std::vector<std::int64_t> result;
    for (const PickleIndex child : tuple.children) {
      if (node(child).kind != PickleKind::kInt || node(child).number < 0) {
        refuse("a tensor's {} is not made of whole numbers from 0 on", what);
      }
      result.push_back(node(child).number);
    }
    if (tuple.kind != PickleKind::kTuple || result.size() > kMaxTensorDims) {
      refuse("a tensor's {} is not a tuple of at most {} numbers", what, kMaxTensorDims);
    }
    return result;
  }

  /// (storage, offset, size, stride, requires_grad, hooks[, metadata])
  void rebuild_tensor(const std::vector<PickleIndex>& values) {
    if ((values.size() != 6 && values.size() != 7) || node(values[0]).kind != PickleKind::kStorage ||
        node(values[1]).kind != PickleKind::kInt || node(values[4]).kind != PickleKind::kBool ||
        node(values[5]).kind != PickleKind::kOrderedDict) {
      refuse("_rebuild_tensor_v2 takes (storage, offset, size, stride, requires_grad, hooks)");
    }
    const PickleNode& storage = node(values[0]);
    PickledTensor tensor;
    tensor.storage_key = storage.text;
    tensor.dtype = storage.dtype;
    tensor.storage_numel = storage.number;
    tensor.storage_offset = node(values[1]).number;
    tensor.shape = sizes(values[2], "size");
    tensor.strides = sizes(values[3], "stride");
    check_inside_storage(tensor);
    tensors_.push_back(std::move(tensor));
    push_new(PickleKind::kTensor).number = static_cast<std::int64_t>(tensors_.size() - 1);
  }

  void check_inside_storage(const PickledTensor& tensor) const {
    if (tensor.shape.size() != tensor.strides.size()) {
      refuse("a tensor has {} sizes and {} strides", tensor.shape.size(), tensor.strides.size());
    }
    std::int64_t last = tensor.storage_offset;
    auto bytes = static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
    bool overflows = tensor.storage_offset < 0;
    const bool is_empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
    for (std::size_t dim = 0; dim < tensor.shape.size(); ++dim) {
      const std::int64_t size = std::max<std::int64_t>(tensor.shape[dim], 1);
      std::int64_t step = 0;
      overflows = overflows || __builtin_mul_overflow(size - 1, tensor.strides[dim], &step) ||
                  __builtin_add_overflow(last, step, &last) || __builtin_mul_overflow(bytes, size, &bytes);
    }
    if (overflows || (!is_empty && last >= tensor.storage_numel)) {
      refuse("a tensor of size ({}) and stride ({}) at {} reaches outside its storage of {} elements",
             fmt::join(tensor.shape, ", "), fmt::join(tensor.strides, ", "), tensor.storage_offset,
             tensor.storage_numel);
    }
    // A stride of 0 repeats elements, so that a file of a few bytes may claim any size: only small ones may.
    const auto item = static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
    if (!is_empty && bytes > kMaxRepeatedBytes && bytes / item > tensor.storage_numel) {
      refuse("a tensor of size ({}) has more elements than its storage, {}; save it with .contiguous()",
             fmt::join(tensor.shape, ", "), tensor.storage_numel);
    }
  }

  /// Only the attributes of an OrderedDict (its _metadata); they are of no use here.
  void build() {
    const PickleKind state = node(pop()).kind;
    if ((state != PickleKind::kDict && state != PickleKind::kOrderedDict) ||
        node(top()).kind != PickleKind::kOrderedDict) {
      refuse("a state is set on a value that is no OrderedDict");
    }
  }

  std::vector<PickledTensor> collect(PickleIndex result) const {
    const PickleNode& dict = node(result);
    if (dict.kind != PickleKind::kDict && dict.kind != PickleKind::kOrderedDict) {
      refuse("the file holds no dict of tensors");
    }
    std::vector<PickledTensor> found;
    std::unordered_set<std::string_view> names;
    for (std::size_t i = 0; i < dict.children.size(); i += 2) {
      const PickleNode& key = node(dict.children[i]);
      const PickleNode& value = node(dict.children[i + 1]);
      if (key.kind != PickleKind::kString) {
        refuse("a key of the tensor dict is not a string");
      }
      if (!is_plain_name(key.text)) {
        refuse("tensor name '{}' is empty, too long or holds control characters", excerpt(key.text));
      }
      if (value.kind != PickleKind::kTensor) {
        refuse("'{}' is not a tensor; only a flat dict of tensors is read", key.text);
      }
      if (!names.insert(key.text).second) {
        refuse("tensor name '{}' occurs twice", key.text);
      }
      found.push_back(tensors_[static_cast<std::size_t>(value.number)]);
      found.back().name = key.text;
    }
    return found;
  }

  std::span<const std::byte> pickle_;
  const std::string& where_;
  std::size_t at_ = 0;
  std::size_t at_opcode_ = 0;
  Opcode opcode_ = Opcode::kProto;
  std::vector<PickleNode> nodes_;
  std::vector<PickleIndex> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint32_t, PickleIndex> memo_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> parse_tensor_dict(std::span<const std::byte> pickle, const std::string& where) {
  return Unpickler(pickle, where).run();
}

}  // namespace caravan
