// Passes every op on to another backend and remembers which ones were called.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "caravan/backend/backend.h"

namespace caravan::test {

class RecordingBackend final : public Backend {
 public:
  /// `before_each` is called with an op's name before it is passed on.
  explicit RecordingBackend(Backend& inner, std::function<void(const std::string&)> before_each = {})
      : inner_(inner), before_each_(std::move(before_each)) {}

  const std::set<std::string>& called() const { return called_; }
  /// Called before each dropout, for what masks a run draws.
  std::function<void(const DropoutArgs&, Stream&)> on_dropout;
  /// How often memory was asked for.
  int allocations() const { return allocations_; }
  /// Ranges that were begun, by name, and "end" where one ended.
  const std::vector<std::string>& timeline() const { return timeline_; }

  std::string_view name() const override { return "recording"; }
  Device device() const override { return inner_.device(); }
  bool supports(DType dtype) const override { return inner_.supports(dtype); }
  void range_begin(const char* name) override { timeline_.emplace_back(name); }
  void range_end() override { timeline_.emplace_back("end"); }
  Buffer allocate(std::int64_t bytes) override {
    ++allocations_;
    return inner_.allocate(bytes);
  }

  Buffer allocate_pinned(std::int64_t bytes) override {
    ++allocations_;
    return inner_.allocate_pinned(bytes);
  }
  void send(const void* from, const TensorView& to, Stream& stream) override {
    inner_.send(from, to, stream);
  }

  void matmul_nt(const MatmulNtArgs& args, Stream& stream) override {
    pass("matmul_nt", &Backend::matmul_nt, args, stream);
  }
  void matmul_nn(const MatmulNnArgs& args, Stream& stream) override {
    pass("matmul_nn", &Backend::matmul_nn, args, stream);
  }
  void matmul_tn(const MatmulTnArgs& args, Stream& stream) override {
    pass("matmul_tn", &Backend::matmul_tn, args, stream);
  }
  void embedding_forward(const EmbeddingForwardArgs& args, Stream& stream) override {
    pass("embedding_forward", &Backend::embedding_forward, args, stream);
  }
  void embedding_backward(const EmbeddingBackwardArgs& args, Stream& stream) override {
    pass("embedding_backward", &Backend::embedding_backward, args, stream);
  }
  void rmsnorm_forward(const RmsNormForwardArgs& args, Stream& stream) override {
    pass("rmsnorm_forward", &Backend::rmsnorm_forward, args, stream);
  }
  void rmsnorm_backward(const RmsNormBackwardArgs& args, Stream& stream) override {
    pass("rmsnorm_backward", &Backend::rmsnorm_backward, args, stream);
  }
  void rope(const RopeArgs& args, Stream& stream) override { pass("rope", &Backend::rope, args, stream); }
  void attention_forward(const AttentionForwardArgs& args, Stream& stream) override {
    pass("attention_forward", &Backend::attention_forward, args, stream);
  }
  void attention_backward(const AttentionBackwardArgs& args, Stream& stream) override {
    pass("attention_backward", &Backend::attention_backward, args, stream);
  }
  void attention_merge(const AttentionMergeArgs& args, Stream& stream) override {
    pass("attention_merge", &Backend::attention_merge, args, stream);
  }
  void swiglu_forward(const SwigluForwardArgs& args, Stream& stream) override {
    pass("swiglu_forward", &Backend::swiglu_forward, args, stream);
  }
  void swiglu_backward(const SwigluBackwardArgs& args, Stream& stream) override {
    pass("swiglu_backward", &Backend::swiglu_backward, args, stream);
  }
  void cross_entropy_stats(const CrossEntropyStatsArgs& args, Stream& stream) override {
    pass("cross_entropy_stats", &Backend::cross_entropy_stats, args, stream);
  }
  void cross_entropy_rescale(const CrossEntropyRescaleArgs& args, Stream& stream) override {
    pass("cross_entropy_rescale", &Backend::cross_entropy_rescale, args, stream);
  }
  void cross_entropy_loss(const CrossEntropyLossArgs& args, Stream& stream) override {
    pass("cross_entropy_loss", &Backend::cross_entropy_loss, args, stream);
  }
  void cross_entropy_backward(const CrossEntropyBackwardArgs& args, Stream& stream) override {
    pass("cross_entropy_backward", &Backend::cross_entropy_backward, args, stream);
  }
  void cross_entropy(const CrossEntropyArgs& args, Stream& stream) override {
    pass("cross_entropy", &Backend::cross_entropy, args, stream);
  }
  void add(const AddArgs& args, Stream& stream) override { pass("add", &Backend::add, args, stream); }
  void scale(const ScaleArgs& args, Stream& stream) override { pass("scale", &Backend::scale, args, stream); }
  void zero(const ZeroArgs& args, Stream& stream) override { pass("zero", &Backend::zero, args, stream); }
  void dropout(const DropoutArgs& args, Stream& stream) override {
    if (on_dropout) {
      on_dropout(args, stream);
    }
    pass("dropout", &Backend::dropout, args, stream);
  }
  void copy(const CopyArgs& args, Stream& stream) override { pass("copy", &Backend::copy, args, stream); }
  void sum(const SumArgs& args, Stream& stream) override { pass("sum", &Backend::sum, args, stream); }
  void sum_squares(const SumSquaresArgs& args, Stream& stream) override {
    pass("sum_squares", &Backend::sum_squares, args, stream);
  }
  void prepare_update(const PrepareUpdateArgs& args, Stream& stream) override {
    pass("prepare_update", &Backend::prepare_update, args, stream);
  }
  void adamw(const AdamwArgs& args, Stream& stream) override { pass("adamw", &Backend::adamw, args, stream); }
  void random_normal(const RandomNormalArgs& args, Stream& stream) override {
    pass("random_normal", &Backend::random_normal, args, stream);
  }

 private:
  /// Remembers `method` under the name it has in Backend.
  template <class Args>
  void pass(const char* method, void (Backend::*op)(const Args&, Stream&), const Args& args, Stream& stream) {
    called_.insert(method);
    if (before_each_) {
      before_each_(method);
    }
    (inner_.*op)(args, stream);
  }

  Backend& inner_;
  std::function<void(const std::string&)> before_each_;
  std::set<std::string> called_;
  int allocations_ = 0;
  std::vector<std::string> timeline_;
};

}  // namespace caravan::test
