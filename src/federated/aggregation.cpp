#include "caravan/federated/aggregation.h"

#include "caravan/backend/device_memory.h"
#include "caravan/core/error.h"

namespace caravan {
namespace {

template <class T>
struct Update {
  T scale;
  T momentum;
  T lr;
  bool nesterov;

  void run(const TensorView& gathered, const TensorView& old, const TensorView& velocity) const {
    const T* from = gathered.data<T>();
    T* to = old.data<T>();
    T* v = velocity.defined() ? velocity.data<T>() : nullptr;
    for (std::int64_t i = 0; i < old.numel(); ++i) {
      const T delta = scale * (from[i] - to[i]);
      T step = delta;
      if (v != nullptr) {
        v[i] = momentum * v[i] + delta;
        step = nesterov ? delta + momentum * v[i] : v[i];
      }
      to[i] += lr * step;
    }
  }
};

}  // namespace

Aggregation::Aggregation(const FederatedSection& options, const std::vector<TensorView>& full)
    : options_(options),
      is_plain_(options.delta_scale == 1.0 && options.outer.momentum == 0.0 && options.outer.lr == 1.0) {
  if (options.outer.momentum == 0.0) {
    return;
  }
  std::int64_t bytes = 0;
  for (const TensorView& value : full) {
    bytes += value.bytes();
  }
  memory_ = allocate_host(bytes);
  std::int64_t offset = 0;
  for (const TensorView& value : full) {
    momentum_.push_back(memory_.view(offset, value.dtype(), value.shape()));
    offset += value.bytes();
  }
}

void Aggregation::apply(std::size_t index, Kind kind, const TensorView& gathered, const TensorView& old) {
  const double scale = kind == Kind::kSplit ? options_.delta_scale : 1.0;
  const TensorView velocity = momentum_.empty() ? TensorView() : momentum_.at(index);
  // Once a round, on the host wherever the model is; in place where it is there.
  const HostCopy arrived(gathered);
  HostDraft changed(old);
  if (changed.view().raw() != old.raw()) {
    copy_to_host(old, changed.view().raw());
  }
  if (old.dtype() == DType::kFloat64) {
    Update<double>{scale, options_.outer.momentum, options_.outer.lr, options_.outer.nesterov}.run(
        arrived.view(), changed.view(), velocity);
  } else {
    CARAVAN_CHECK(old.dtype() == DType::kFloat32, "aggregation of {}", old.str());
    Update<float>{static_cast<float>(scale), static_cast<float>(options_.outer.momentum),
                  static_cast<float>(options_.outer.lr), options_.outer.nesterov}
        .run(arrived.view(), changed.view(), velocity);
  }
  changed.commit();
}

}  // namespace caravan
