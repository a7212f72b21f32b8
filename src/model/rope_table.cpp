#include "caravan/model/rope_table.h"

#include <cmath>
#include <numbers>

#include "caravan/backend/device_memory.h"
#include "caravan/core/error.h"

namespace caravan {

std::vector<double> rope_frequencies(const ModelConfig& config) {
  std::vector<double> frequencies;
  for (std::int64_t j = 0; j < config.head_dim / 2; ++j) {
    const double exponent = -2.0 * static_cast<double>(j) / static_cast<double>(config.head_dim);
    double freq = std::pow(config.rope_theta, exponent);
    if (config.rope_scaling) {
      const RopeScaling& scaling = *config.rope_scaling;
      const double wavelength = 2.0 * std::numbers::pi / freq;
      const auto old_length = static_cast<double>(scaling.original_max_position);
      if (wavelength > old_length / scaling.low_freq_factor) {
        freq /= scaling.factor;
      } else if (wavelength >= old_length / scaling.high_freq_factor) {
        const double t = (old_length / wavelength - scaling.low_freq_factor) /
                         (scaling.high_freq_factor - scaling.low_freq_factor);
        freq = (1.0 - t) * freq / scaling.factor + t * freq;
      }
    }
    frequencies.push_back(freq);
  }
  return frequencies;
}

namespace {

template <class T>
void fill_tables(const std::vector<double>& frequencies, const TensorView& cosines, const TensorView& sines) {
  T* cos_out = cosines.data<T>();
  T* sin_out = sines.data<T>();
  for (std::int64_t position = 0; position < cosines.dim(0); ++position) {
    for (const double freq : frequencies) {
      const double angle = static_cast<double>(position) * freq;
      *cos_out++ = static_cast<T>(std::cos(angle));
      *sin_out++ = static_cast<T>(std::sin(angle));
    }
  }
}

}  // namespace

RopeTable::RopeTable(Backend& backend, DType storage, const ModelConfig& config, std::int64_t positions) {
  const DType dtype = accumulation_dtype(storage);
  const Shape shape = {positions, config.head_dim / 2};
  const std::int64_t one = shape.numel() * static_cast<std::int64_t>(dtype_bytes(dtype));
  memory_ = backend.allocate(2 * one);
  cos_ = memory_.view(0, dtype, shape);
  sin_ = memory_.view(one, dtype, shape);
  if (backend.device().kind == DeviceKind::kNone) {
    return;
  }
  const std::vector<double> frequencies = rope_frequencies(config);
  CARAVAN_CHECK(dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kComplex128,
                "rotary tables in {}", dtype_name(dtype));
  HostDraft cosines(cos_);
  HostDraft sines(sin_);
  if (dtype == DType::kFloat32) {
    fill_tables<float>(frequencies, cosines.view(), sines.view());
  } else if (dtype == DType::kFloat64) {
    fill_tables<double>(frequencies, cosines.view(), sines.view());
  } else {
    fill_tables<std::complex<double>>(frequencies, cosines.view(), sines.view());
  }
  cosines.commit();
  sines.commit();
}

}  // namespace caravan
