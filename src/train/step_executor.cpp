#include "caravan/train/step_executor.h"

#include <numeric>

#include "caravan/backend/device_memory.h"

namespace caravan {

double sum_on_host(const TensorView& stored) {
  const HostCopy copy(stored);
  const TensorView& losses = copy.view();
  if (losses.dtype() == DType::kFloat64) {
    const auto* values = losses.data<double>();
    return std::accumulate(values, values + losses.numel(), 0.0);
  }
  const auto* values = losses.data<float>();
  return std::accumulate(values, values + losses.numel(), 0.0,
                         [](double sum, float value) { return sum + static_cast<double>(value); });
}

}  // namespace caravan
