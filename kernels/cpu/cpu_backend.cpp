#include "kernels/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <string>

#include "caravan/core/parallel_for.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/products.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/reference/loss.h"
#include "kernels/reference/optimizer_step.h"
#include "kernels/reference/update_state.h"

namespace caravan {
namespace {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(SimdLevel level)
      : table_(simd_table(level)), name_(fmt::format("cpu (OpenBLAS, {})", simd_level_name(level))) {
    cpu::use_one_blas_thread();
  }

  std::string_view name() const override { return name_; }
  Device device() const override { return {DeviceKind::kCpu, 0}; }
  bool supports(DType dtype) const override { return dtype == DType::kFloat32 || dtype == DType::kFloat64; }
  Buffer allocate(std::int64_t bytes) override { return allocate_host(bytes); }

  void matmul_nt(const MatmulNtArgs& args, Stream&) override { cpu::matmul_nt(table_, args); }
  void matmul_nn(const MatmulNnArgs& args, Stream&) override { cpu::matmul_nn(args); }
  void matmul_tn(const MatmulTnArgs& args, Stream&) override { cpu::matmul_tn(args); }
  void embedding_forward(const EmbeddingForwardArgs& args, Stream&) override {
    with_real(args.y.dtype(), [&]<class T>() { cpu::embedding_forward<T>(args); });
  }
  void embedding_backward(const EmbeddingBackwardArgs& args, Stream&) override {
    with_real(args.dweight.dtype(), [&]<class T>() { cpu::embedding_backward<T>(ops<T>(), args); });
  }
  void rmsnorm_forward(const RmsNormForwardArgs& args, Stream&) override {
    with_real(args.y.dtype(), [&]<class T>() { cpu::rmsnorm_forward<T>(ops<T>(), args); });
  }
  void rmsnorm_backward(const RmsNormBackwardArgs& args, Stream&) override {
    with_real(args.dx.dtype(), [&]<class T>() { cpu::rmsnorm_backward<T>(ops<T>(), args, scratch_); });
  }
  void rope(const RopeArgs& args, Stream&) override {
    with_real(args.x.dtype(), [&]<class T>() { cpu::rope<T>(ops<T>(), args); });
  }
  void attention_forward(const AttentionForwardArgs& args, Stream&) override {
    with_real(args.o.dtype(), [&]<class T>() { cpu::attention_forward<T>(ops<T>(), args, scratch_); });
  }
  void attention_backward(const AttentionBackwardArgs& args, Stream&) override {
    with_real(args.dq.dtype(), [&]<class T>() { cpu::attention_backward<T>(ops<T>(), args, scratch_); });
  }
  void attention_merge(const AttentionMergeArgs& args, Stream&) override {
    with_real(args.o.dtype(), [&]<class T>() { cpu::attention_merge<T>(args); });
  }
  void swiglu_forward(const SwigluForwardArgs& args, Stream&) override {
    with_real(args.h.dtype(), [&]<class T>() { cpu::swiglu_forward<T>(ops<T>(), args); });
  }
  void swiglu_backward(const SwigluBackwardArgs& args, Stream&) override {
    with_real(args.dgate.dtype(), [&]<class T>() { cpu::swiglu_backward<T>(ops<T>(), args); });
  }
  void cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream&) override {
    with_real(args.logits.dtype(), [&]<class T>() { cpu::cross_entropy_stats<T>(ops<T>(), args); });
  }
  void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream&) override {
    with_real(args.row_sum.dtype(), [&]<class T>() { reference::cross_entropy_rescale<T>(args); });
  }
  void cross_entropy_loss(const CrossEntropyLossArgs& args, Stream&) override {
    with_real(args.losses.dtype(), [&]<class T>() { reference::cross_entropy_loss<T>(args); });
  }
  void cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream&) override {
    with_real(args.logits.dtype(), [&]<class T>() { cpu::cross_entropy_backward<T>(ops<T>(), args); });
  }
  void cross_entropy(const CrossEntropyArgs& args, Stream&) override {
    with_real(args.logits.dtype(), [&]<class T>() { cpu::cross_entropy<T>(ops<T>(), args); });
  }
  void add(const AddArgs& args, Stream&) override {
    with_real(args.y.dtype(), [&]<class T>() { cpu::add<T>(ops<T>(), args); });
  }
  void scale(const ScaleArgs& args, Stream&) override {
    with_real(args.x.dtype(), [&]<class T>() { cpu::scale<T>(ops<T>(), args); });
  }
  void zero(const ZeroArgs& args, Stream&) override { cpu::zero(args); }
  void dropout(const DropoutArgs& args, Stream&) override {
    with_real(args.y.dtype(), [&]<class T>() { cpu::dropout<T>(ops<T>(), args); });
  }
  void copy(const CopyArgs& args, Stream&) override { cpu::copy(args); }
  void sum(const SumArgs& args, Stream&) override {
    with_real(args.x.dtype(), [&]<class T>() { reference::sum<T>(args); });
  }
  void sum_squares(const SumSquaresArgs& args, Stream&) override {
    with_real(args.x.dtype(), [&]<class T>() { cpu::sum_squares<T>(ops<T>(), args, scratch_); });
  }
  void prepare_update(const PrepareUpdateArgs& args, Stream&) override { reference::prepare_update(args); }
  void adamw(const AdamwArgs& args, Stream&) override {
    if (!args.master.defined()) {
      with_real(args.param.dtype(), [&]<class T>() { cpu::adamw<T>(ops<T>(), args); });
      return;
    }
    // Of a model on a device whose optimizer state is offloaded.
    if (args.state->is_skipped != 0) {
      return;
    }
    AdamwArgs on_master = args;
    on_master.param = args.master;
    on_master.master = {};
    cpu::adamw<float>(ops<float>(), on_master);
    cpu::copy({.from = args.master, .to = args.param});
  }
  void random_normal(const RandomNormalArgs& args, Stream&) override {
    if (accumulation_dtype(args.y.dtype()) != args.y.dtype()) {  // weights that are offloaded from a device
      const Buffer memory = allocate_host(args.y.numel() * static_cast<std::int64_t>(sizeof(float)));
      RandomNormalArgs in_float = args;
      in_float.y = memory.view(0, DType::kFloat32, args.y.shape());
      cpu::random_normal<float>(in_float);
      cpu::copy({.from = in_float.y, .to = args.y});
      return;
    }
    with_real(args.y.dtype(), [&]<class T>() { cpu::random_normal<T>(args); });
  }

 private:
  template <class T>
  const simd::SimdOps<T>& ops() const {
    return simd::ops_of<T>(table_);
  }
  /// Calls body.template operator()<T>() for the scalar type of `dtype`.
  template <class Body>
  static void with_real(DType dtype, Body&& body) {
    switch (dtype) {
      case DType::kFloat32:
        return body.template operator()<float>();
      case DType::kFloat64:
        return body.template operator()<double>();
      default:
        fail<InternalError>("the CPU backend computes in float32 and float64, not in {}", dtype_name(dtype));
    }
  }

  const simd::SimdTable& table_;
  std::string name_;
  cpu::CpuScratch scratch_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend() {
  return make_cpu_backend(preferred_simd_level());
}

std::unique_ptr<Backend> make_cpu_backend(SimdLevel level) {
  return std::make_unique<CpuBackend>(level);
}

void set_cpu_threads(int count) {
  cpu::use_one_blas_thread();
  set_thread_count(count);
}

}  // namespace caravan
