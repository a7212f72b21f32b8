#include "shard_header.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>

#include "box_tiling.h"
#include "caravan/core/checksum.h"
#include "caravan/core/error.h"
#include "little_endian.h"
#include "safetensors_header.h"

namespace caravan {
namespace {

constexpr std::int64_t kMaxHeaderBytes = 100'000'000;  // what safetensors' reference implementation reads
constexpr std::string_view kBeforeId = "{\"__metadata__\":{\"format\":\"pt\",\"caravan_checkpoint\":\"";
constexpr std::string_view kBeforeStep = "\",\"caravan_step\":\"";
constexpr std::string_view kBeforeRank = "\",\"caravan_rank\":\"";
constexpr std::string_view kAfterRank = "\"}";

/// Takes `text` off the front of `rest`.
bool take(std::string_view& rest, std::string_view text) {
  const bool is_there = rest.starts_with(text);
  rest.remove_prefix(is_there ? text.size() : 0);
  return is_there;
}

bool take(std::string_view& rest, std::int64_t& number) {
  const auto [end, status] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return status == std::errc() && number >= 0;
}

std::string json_text(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string shard_header(const ShardIdentity& identity, const std::vector<GlobalTensor>& tensors,
                         std::vector<CheckpointPiece>& pieces) {
  std::string text = fmt::format("{}{}{}{}{}{}{}", kBeforeId, identity.id, kBeforeStep, identity.step,
                                 kBeforeRank, identity.rank, kAfterRank);
  std::int64_t begin = 0;
  for (CheckpointPiece& piece : pieces) {
    const GlobalTensor& tensor = tensors[static_cast<std::size_t>(piece.tensor)];
    const Shape shape = region_shape(piece.region);
    piece.begin = begin;
    piece.end = begin + shape.numel() * static_cast<std::int64_t>(dtype_bytes(tensor.dtype));
    begin = piece.end;
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})",
                        json_text(tensor.name + region_text(piece.region)),
                        safetensors_dtype_name(tensor.dtype), shape.str(), piece.begin, piece.end);
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  CARAVAN_CHECK(static_cast<std::int64_t>(text.size()) <= kMaxHeaderBytes, "a shard header of {} bytes",
                text.size());
  std::string header;
  append_little_endian(header, static_cast<std::uint64_t>(text.size()));
  header += text;
  for (CheckpointPiece& piece : pieces) {
    piece.begin += static_cast<std::int64_t>(header.size());
    piece.end += static_cast<std::int64_t>(header.size());
  }
  return header;
}

std::optional<ShardIdentity> shard_identity(const InputFile& file) {
  constexpr std::size_t kIdDigits = 16;
  std::array<char, 256> head{};
  const auto bytes = static_cast<std::size_t>(std::min(file.size(), static_cast<std::int64_t>(head.size())));
  file.read_at(0, std::as_writable_bytes(std::span(head).first(bytes)));
  std::string_view rest(head.data(), bytes);
  if (rest.size() < sizeof(std::uint64_t)) {
    return std::nullopt;
  }
  rest.remove_prefix(sizeof(std::uint64_t));
  ShardIdentity identity;
  if (!take(rest, kBeforeId)) {
    return std::nullopt;
  }
  identity.id = std::string(rest.substr(0, kIdDigits));
  rest.remove_prefix(identity.id.size());
  const bool is_whole = parse_checksum(identity.id) && take(rest, kBeforeStep) && take(rest, identity.step) &&
                        take(rest, kBeforeRank) && take(rest, identity.rank) && take(rest, kAfterRank);
  return is_whole ? std::optional(std::move(identity)) : std::nullopt;
}

}  // namespace caravan
