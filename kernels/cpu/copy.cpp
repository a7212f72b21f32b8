#include <algorithm>
#include <cstring>
#include <type_traits>

#include "caravan/core/parallel_for.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/reference/elementwise.h"

namespace caravan::cpu {
namespace {

template <class To, class From>
void copy_contiguous(const CopyArgs& args) {
  const From* from = args.from.data<From>();
  To* to = args.to.data<To>();
  parallel_for(args.from.numel(), kGrainElements, [&](std::int64_t begin, std::int64_t end) {
    std::transform(from + begin, from + end, to + begin,
                   [](From value) { return reference::convert<To>(value); });
  });
}

/// Whole rows at once where they are contiguous in both.
template <class To, class From>
void copy_strided(const CopyArgs& args) {
  if constexpr (std::is_same_v<To, From>) {
    const int last = args.from.rank() - 1;
    if (args.from.stride(last) == 1 && args.to.stride(last) == 1) {
      const From* from = args.from.data<From>();
      To* to = args.to.data<To>();
      const std::int64_t width = args.from.dim(last);
      reference::for_each_row(args.from, args.to, [&](std::int64_t from_offset, std::int64_t to_offset) {
        std::copy_n(from + from_offset, width, to + to_offset);
      });
      return;
    }
  }
  reference::copy_elements<To, From>(args);
}

}  // namespace

void zero(const ZeroArgs& args) {
  CARAVAN_CHECK(args.x.is_contiguous(), "{} must be contiguous", args.x.str());
  auto* bytes = static_cast<std::byte*>(args.x.raw());
  parallel_for(args.x.bytes(), kGrainElements * 4, [&](std::int64_t begin, std::int64_t end) {
    std::memset(bytes + begin, 0, static_cast<std::size_t>(end - begin));
  });
}

void copy(const CopyArgs& args) {
  CARAVAN_CHECK(args.from.shape() == args.to.shape(), "copy of {} to {}", args.from.str(), args.to.str());
  const bool is_contiguous = args.from.is_contiguous() && args.to.is_contiguous();
  reference::with_copy_types(args, [&]<class To, class From>() {
    if (is_contiguous) {
      copy_contiguous<To, From>(args);
    } else {
      copy_strided<To, From>(args);
    }
  });
}

}  // namespace caravan::cpu
