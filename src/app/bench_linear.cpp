// A column-parallel and a row-parallel layer with the ports and stores of training
// (docs/tensor_parallel_linear.md has the same without them).
#include "bench_workload.h"
#include "caravan/backend/counting_backend.h"
#include "caravan/comm/counting_communicator.h"
#include "caravan/comm/self_communicator.h"
#include "caravan/model/linear.h"
#include "caravan/model/local_ports.h"
#include "caravan/ops/elementwise.h"
#include "caravan/optim/adamw.h"
#include "caravan/parallel/sequence_boundary.h"
#include "caravan/parallel/sharded_store.h"
#include "caravan/parallel/tensor_boundary.h"

namespace caravan::app {
namespace {

constexpr DType kDType = DType::kFloat32;
constexpr std::int64_t kUnlimited = std::int64_t{1} << 50U;
constexpr double kLearningRate = 1e-4;

bool divides_weights(Division division) {
  return division == Division::kTp || division == Division::kTpSp;
}

std::vector<ParameterSpec> two_layers(std::int64_t hidden) {
  return {{.name = "first.weight", .shape = {hidden, hidden}, .shard = {{{"tp", 0, 1}}, {}}, .group = 0},
          {.name = "second.weight", .shape = {hidden, hidden}, .shard = {{{"tp", 1, 1}}, {}}, .group = 1}};
}

std::unique_ptr<Boundary> make_boundary(Division division, Communicator& tp) {
  if (tp.size() == 1) {
    return std::make_unique<LocalBoundary>();
  }
  if (division == Division::kTpSp) {
    return std::make_unique<SequenceBoundary>(tp);
  }
  return std::make_unique<TensorBoundary>(tp);
}

class LinearPair final : public Workload {
 public:
  LinearPair(const WorkloadSize& size, Division division, Communicator& ranks, Backend& backend,
             std::int64_t scratch_bytes)
      : ranks_(ranks),
        tp_(divides_weights(division) ? ranks : alone_),
        data_(divides_weights(division) ? alone_ : ranks),
        is_sharded_(division == Division::kFsdp && ranks.size() > 1),
        backend_(backend),
        at_({{"tp", tp_.rank(), tp_.size()}}),
        parameters_(two_layers(size.hidden), at_, kDType, backend,
                    is_sharded_ ? Gradients::kLeased : Gradients::kAllocated,
                    is_sharded_ ? Values::kLeased : Values::kAllocated),
        boundary_(make_boundary(division, tp_)),
        first_(parameters_.at("first.weight")),
        second_(parameters_.at("second.weight")),
        scratch_("linear layers", backend.allocate(scratch_bytes)) {
    if (is_sharded_) {
      store_ = std::make_unique<ShardedStore>(
          parameters_, ShardedStore::Options{},
          ShardedStore::Ranks{.fsdp = data_, .replicate = alone_, .partial = {}}, at_, kDType,
          ShardedStore::Backends{backend, backend});
    } else {
      store_ = std::make_unique<DataParallelStore>(parameters_, data_, at_, std::vector<PartialGroup>{});
    }
    optimizer_ = std::make_unique<Adamw>(store_->shards(), AdamwOptions{}, kDType, backend);
    const std::int64_t rows = boundary_->stream_tokens(size.batch / data_.size());
    input_ = backend.allocate(rows * size.hidden * static_cast<std::int64_t>(dtype_bytes(kDType)));
    x_ = input_.view(0, kDType, {rows, size.hidden});
    Context ctx = context();
    initialise(ctx, store_->shards(), 1);
    store_->publish_values(ctx);
    random_normal(ctx, {.y = x_,
                        .row_begin = 0,
                        .col_begin = 0,
                        .global_cols = size.hidden,
                        .standard_deviation = 1.0,
                        .seed = 2,
                        .stream = 3});
  }

  void gradients() override {
    Context ctx = context();
    store_->zero_gradients(ctx);
    const ArenaScope scope(scratch_);
    const auto allocate = [&](const Shape& shape) { return ctx.allocate("linear layers", shape); };
    TensorView x, h;
    {
      const Lease lease(*store_, first_group_);
      store_->prefetch(1, LeaseUse::kBackward);
      x = boundary_->enter(ctx, x_, allocate);
      h = allocate({x.dim(0), first_.out_features()});
      first_.forward(ctx, x, h);
    }
    const TensorView dh = allocate(h.shape());
    {
      const Lease lease(*store_, second_group_, LeaseUse::kBackward);
      const TensorView y = allocate(x_.shape());
      const TensorView partial = boundary_->partial_buffer(ctx, y);
      second_.forward(ctx, h, partial);
      boundary_->leave(ctx, partial, y).wait();
      const TensorView dy = boundary_->leave_backward(ctx, y, allocate);  // of ½ Σ y²
      store_->prefetch(0, LeaseUse::kBackward);
      second_.backward_input(ctx, dy, dh);
      second_.backward_weight(ctx, h, dy);
    }
    store_->commit(1, MicroBatch::kLast);
    {
      const Lease lease(*store_, first_group_, LeaseUse::kBackward);
      const TensorView dx = allocate(x_.shape());
      const TensorView partial = boundary_->partial_buffer(ctx, dx);
      first_.backward_input(ctx, dh, partial);
      Pending sum = boundary_->enter_backward(ctx, partial, dx);
      first_.backward_weight(ctx, x, dh);
      sum.wait();
    }
    store_->commit(0, MicroBatch::kLast);
    store_->finish_gradients();
  }

  void step() override {
    gradients();
    Context ctx = context();
    ctx.scalars.lr = kLearningRate;
    optimizer_->update(ctx);
    store_->publish_values(ctx);
  }

  Traffic traffic() const override { return ranks_.traffic(); }

  std::int64_t memory_bytes() const override {
    const auto* sharded = dynamic_cast<const ShardedStore*>(store_.get());
    return parameters_.value_bytes() + parameters_.grad_bytes() +
           (sharded != nullptr ? sharded->device_bytes() : 0) + optimizer_->bytes() + scratch_.capacity() +
           input_.bytes();
  }
  std::int64_t scratch_bytes() const { return scratch_.high_water(); }

 private:
  Context context() {
    return {
        .backend = backend_, .stream = stream_, .scratch = scratch_, .scalars = scalars_, .dtype = kDType};
  }

  Communicator& ranks_;
  SelfCommunicator alone_;
  Communicator& tp_;
  Communicator& data_;
  bool is_sharded_;
  Backend& backend_;
  Coordinates at_;
  ParameterSet parameters_;
  std::unique_ptr<Boundary> boundary_;
  std::unique_ptr<TrainingStore> store_;
  std::unique_ptr<Adamw> optimizer_;
  Linear first_, second_;
  std::vector<int> first_group_ = {0}, second_group_ = {1};
  Arena scratch_;
  Stream stream_;
  StepScalars scalars_;
  Buffer input_;
  TensorView x_;  // [rows of the stream here, hidden]
};

}  // namespace

std::unique_ptr<Workload> make_linear_workload(const WorkloadSize& size, Division division,
                                               Communicator& ranks, Backend& backend) {
  CountingBackend counting;
  CountingCommunicator counted(ranks.rank(), ranks.size());
  LinearPair on_shapes(size, division, counted, counting, kUnlimited);
  on_shapes.gradients();
  return std::make_unique<LinearPair>(size, division, ranks, backend, on_shapes.scratch_bytes());
}

}  // namespace caravan::app
