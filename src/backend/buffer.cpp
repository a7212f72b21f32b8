#include "caravan/backend/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "caravan/core/error.h"

namespace caravan {

TensorView Buffer::view(std::int64_t offset_bytes, DType dtype, const Shape& shape) const {
  TensorView probe(nullptr, dtype, shape, device_);
  CARAVAN_CHECK(offset_bytes >= 0 && offset_bytes + probe.bytes() <= bytes_,
                "{} at byte {} of a buffer of {}", probe.str(), offset_bytes, bytes_);
  CARAVAN_CHECK(offset_bytes % static_cast<std::int64_t>(dtype_bytes(dtype)) == 0, "{} at byte {}",
                probe.str(), offset_bytes);
  if (device_.kind == DeviceKind::kNone) {
    return probe;
  }
  return {static_cast<char*>(data_.get()) + offset_bytes, dtype, shape, device_};
}

namespace {

/// Asks for huge pages where a block holds some whole ones: rows of a matrix lie on pages of their own, and a
/// product walks down columns. Only advice; a system that gives none serves small pages as before.
void prefer_huge_pages(std::uintptr_t begin, std::size_t bytes) {
  constexpr std::uintptr_t kPage = std::uintptr_t{1} << 21U;
  const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage;
  const std::uintptr_t last = (begin + bytes) / kPage * kPage;
  if (last >= first + 2 * kPage) {
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // NOLINT: address arithmetic
  }
}

}  // namespace

Buffer allocate_host(std::int64_t bytes) {
  constexpr std::int64_t kAlignment = 64;
  const auto rounded = static_cast<std::size_t>((bytes + kAlignment - 1) / kAlignment * kAlignment);
  // calloc gets zero pages from the system without touching them, which aligned_alloc + memset would.
  void* raw = std::calloc(rounded + kAlignment, 1);
  if (raw == nullptr) {
    fail<DeviceError>(
        "out of host memory: could not allocate {} bytes; use fewer rows per batch, a smaller "
        "max_seq_len or more ranks (caravan train --dry-run shows the memory plan)",
        bytes);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(raw);  // NOLINT: alignment arithmetic
  prefer_huge_pages(address, rounded + kAlignment);
  const std::uintptr_t aligned = (address / kAlignment + 1) * kAlignment;
  auto* data = static_cast<char*>(raw) + (aligned - address);
  std::memcpy(data - sizeof(void*), &raw, sizeof(void*));  // where free() finds the block
  return {data, bytes, Device{}, [](void* memory) {
            void* block = nullptr;
            if (memory != nullptr) {
              std::memcpy(&block, static_cast<char*>(memory) - sizeof(void*), sizeof(void*));
            }
            std::free(block);
          }};
}

}  // namespace caravan
