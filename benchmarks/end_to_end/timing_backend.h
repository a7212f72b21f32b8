// A backend that passes every op on to another one and adds up how long each kind took.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "caravan/backend/backend.h"
#include "caravan/core/clock.h"

namespace caravan {

enum class OpKind : std::uint8_t {
  kProducts,
  kAttentionForward,
  kAttentionBackward,
  kNorms,
  kRotary,
  kSwiglu,
  kLoss,
  kAdamw,
  kGradientNorm,
  kZero,
  kRest
};
inline constexpr std::size_t kOpKinds = 11;
inline constexpr std::array<const char*, kOpKinds> kOpKindNames = {"products",
                                                                   "attention_forward",
                                                                   "attention_backward",
                                                                   "norms",
                                                                   "rotary",
                                                                   "swiglu",
                                                                   "loss_head",
                                                                   "adamw",
                                                                   "gradient_norm",
                                                                   "zero",
                                                                   "rest"};

/// c [m, n] with k terms; form: "nt", "nn" or "tn" (backend/op_args.h).
struct ProductShape {
  const char* form;
  std::int64_t m, n, k;
  Accumulate accumulate;
  friend bool operator<(const ProductShape& a, const ProductShape& b) {
    return std::tuple(std::string_view(a.form), a.m, a.n, a.k, a.accumulate) <
           std::tuple(std::string_view(b.form), b.m, b.n, b.k, b.accumulate);
  }
};

class TimingBackend final : public Backend {
 public:
  struct Sum {
    double seconds = 0.0;
    double amount = 0.0;  // floating-point operations of products, bytes read and written of the rest
  };

  /// settle waits until all that was enqueued is done, where ops return before they are; none: they do not.
  explicit TimingBackend(Backend& inner, std::function<void()> settle = {})
      : inner_(inner), settle_(std::move(settle)) {}

  const Sum& sum(OpKind kind) const { return sums_.at(static_cast<std::size_t>(kind)); }
  const std::map<ProductShape, Sum>& products() const { return products_; }
  void reset() {
    sums_ = {};
    for (auto& [shape, sum] : products_) {
      sum = {};
    }
  }

  std::string_view name() const override { return inner_.name(); }
  Device device() const override { return inner_.device(); }
  bool supports(DType dtype) const override { return inner_.supports(dtype); }
  Buffer allocate(std::int64_t bytes) override { return inner_.allocate(bytes); }
  Buffer allocate_pinned(std::int64_t bytes) override { return inner_.allocate_pinned(bytes); }
  void send_scalars(const StepScalars& scalars, Stream& s) override { inner_.send_scalars(scalars, s); }
  void send(const void* from, const TensorView& to, Stream& s) override { inner_.send(from, to, s); }

  void matmul_nt(const MatmulNtArgs& a, Stream& s) override {
    product({"nt", a.c.dim(0), a.c.dim(1), a.a.dim(1), a.accumulate}, [&] { inner_.matmul_nt(a, s); });
  }
  void matmul_nn(const MatmulNnArgs& a, Stream& s) override {
    product({"nn", a.c.dim(0), a.c.dim(1), a.a.dim(1), a.accumulate}, [&] { inner_.matmul_nn(a, s); });
  }
  void matmul_tn(const MatmulTnArgs& a, Stream& s) override {
    product({"tn", a.c.dim(0), a.c.dim(1), a.a.dim(0), a.accumulate}, [&] { inner_.matmul_tn(a, s); });
  }
  void embedding_forward(const EmbeddingForwardArgs& a, Stream& s) override {
    timed(OpKind::kRest, 0, [&] { inner_.embedding_forward(a, s); });
  }
  void embedding_backward(const EmbeddingBackwardArgs& a, Stream& s) override {
    timed(OpKind::kRest, 0, [&] { inner_.embedding_backward(a, s); });
  }
  void rmsnorm_forward(const RmsNormForwardArgs& a, Stream& s) override {
    timed(OpKind::kNorms, (a.delta.defined() ? 4 : 2) * a.y.bytes(), [&] { inner_.rmsnorm_forward(a, s); });
  }
  void rmsnorm_backward(const RmsNormBackwardArgs& a, Stream& s) override {
    timed(OpKind::kNorms, 4 * a.dx.bytes(), [&] { inner_.rmsnorm_backward(a, s); });
  }
  void rope(const RopeArgs& a, Stream& s) override {
    timed(OpKind::kRotary, 2 * a.x.bytes(), [&] { inner_.rope(a, s); });
  }
  void attention_forward(const AttentionForwardArgs& a, Stream& s) override {
    timed(OpKind::kAttentionForward, 0, [&] { inner_.attention_forward(a, s); });
  }
  void attention_backward(const AttentionBackwardArgs& a, Stream& s) override {
    timed(OpKind::kAttentionBackward, 0, [&] { inner_.attention_backward(a, s); });
  }
  void attention_merge(const AttentionMergeArgs& a, Stream& s) override {
    timed(OpKind::kAttentionForward, 0, [&] { inner_.attention_merge(a, s); });
  }
  void swiglu_forward(const SwigluForwardArgs& a, Stream& s) override {
    timed(OpKind::kSwiglu, 3 * a.h.bytes(), [&] { inner_.swiglu_forward(a, s); });
  }
  void swiglu_backward(const SwigluBackwardArgs& a, Stream& s) override {
    timed(OpKind::kSwiglu, 5 * a.dh.bytes(), [&] { inner_.swiglu_backward(a, s); });
  }
  void cross_entropy_stats(const CrossEntropyStatsArgs& a, Stream& s) override {
    timed(OpKind::kLoss, a.logits.bytes(), [&] { inner_.cross_entropy_stats(a, s); });
  }
  void cross_entropy_rescale(const CrossEntropyRescaleArgs& a, Stream& s) override {
    timed(OpKind::kLoss, 0, [&] { inner_.cross_entropy_rescale(a, s); });
  }
  void cross_entropy_loss(const CrossEntropyLossArgs& a, Stream& s) override {
    timed(OpKind::kLoss, 0, [&] { inner_.cross_entropy_loss(a, s); });
  }
  void cross_entropy_backward(const CrossEntropyBackwardArgs& a, Stream& s) override {
    timed(OpKind::kLoss, 2 * a.logits.bytes(), [&] { inner_.cross_entropy_backward(a, s); });
  }
  void cross_entropy(const CrossEntropyArgs& a, Stream& s) override {
    const int passes = a.logits_after == LogitsAfter::kGradient ? 2 : 1;
    timed(OpKind::kLoss, passes * a.logits.bytes(), [&] { inner_.cross_entropy(a, s); });
  }
  void add(const AddArgs& a, Stream& s) override {
    timed(OpKind::kRest, 3 * a.y.bytes(), [&] { inner_.add(a, s); });
  }
  void scale(const ScaleArgs& a, Stream& s) override {
    timed(OpKind::kRest, 2 * a.x.bytes(), [&] { inner_.scale(a, s); });
  }
  void zero(const ZeroArgs& a, Stream& s) override {
    timed(OpKind::kZero, a.x.bytes(), [&] { inner_.zero(a, s); });
  }
  void dropout(const DropoutArgs& a, Stream& s) override {
    timed(OpKind::kRest, 2 * a.y.bytes(), [&] { inner_.dropout(a, s); });
  }
  void copy(const CopyArgs& a, Stream& s) override {
    timed(OpKind::kRest, 0, [&] { inner_.copy(a, s); });
  }
  void sum(const SumArgs& a, Stream& s) override {
    timed(OpKind::kLoss, a.x.bytes(), [&] { inner_.sum(a, s); });
  }
  void prepare_update(const PrepareUpdateArgs& a, Stream& s) override {
    timed(OpKind::kGradientNorm, 0, [&] { inner_.prepare_update(a, s); });
  }
  void adamw(const AdamwArgs& a, Stream& s) override {
    timed(OpKind::kAdamw, 7 * a.param.bytes(), [&] { inner_.adamw(a, s); });
  }
  void sum_squares(const SumSquaresArgs& a, Stream& s) override {
    timed(OpKind::kGradientNorm, a.x.bytes(), [&] { inner_.sum_squares(a, s); });
  }
  void random_normal(const RandomNormalArgs& a, Stream& s) override { inner_.random_normal(a, s); }

 private:
  void settle() const {
    if (settle_) {
      settle_();
    }
  }
  template <class Call>
  double timed(OpKind kind, std::int64_t bytes, const Call& call) {
    settle();
    const StopWatch watch;
    call();
    settle();
    const double seconds = watch.seconds();
    Sum& sum = sums_.at(static_cast<std::size_t>(kind));
    sum.seconds += seconds;
    sum.amount += static_cast<double>(bytes);
    return seconds;
  }
  template <class Call>
  void product(const ProductShape& shape, const Call& call) {
    const double flops = 2.0 * static_cast<double>(shape.m * shape.n) * static_cast<double>(shape.k);
    const double seconds = timed(OpKind::kProducts, 0, call);
    sums_.at(static_cast<std::size_t>(OpKind::kProducts)).amount += flops;
    Sum& sum = products_[shape];
    sum.seconds += seconds;
    sum.amount += flops;
  }

  Backend& inner_;
  std::function<void()> settle_;
  std::array<Sum, kOpKinds> sums_;
  std::map<ProductShape, Sum> products_;
};

}  // namespace caravan
