#include "caravan/federated/federated_run.h"

#include <algorithm>

#include "caravan/ops/dropout.h"
#include "caravan/ops/elementwise.h"

namespace caravan {

namespace {

/// A slice's steps are its rank's alone.
BatchGeometry local_geometry(const RunConfig& config) {
  const std::int64_t rows = config.federated.batch_size;
  return {.batch_size = rows,
          .rows_per_rank = rows,
          .micro_batch = std::min(rows, config.training.micro_batch.value_or(rows))};
}

}  // namespace

Executor::Limits FederatedRun::train_limits(const RunConfig& config) {
  return {.batch = local_geometry(config).micro_batch,
          .seq_len = config.data.max_seq_len - 1,
          .pass = Pass::kForwardBackward,
          .policy = save_policy(config.training.recompute),
          .dropout = config.training.dropout,
          .records = config.cuda_graphs != GraphChoice::kNever};
}

Executor::Limits FederatedRun::eval_limits(const RunConfig& config) {
  Executor::Limits limits = train_limits(config);
  limits.batch = config.federated.batch_size;
  limits.pass = Pass::kForward;
  limits.dropout = 0.0;
  return limits;
}

Llama::Layout FederatedRun::slice_layout(const RunConfig& config, std::int64_t slot, std::int64_t ranks) {
  return {.table = ShardTable::kFederated,
          .at = slot_coordinates(slot, ranks),
          .dtype = config.dtype,
          .gradients = Gradients::kAllocated,
          .positions = config.data.max_seq_len};
}

Llama::Layout FederatedRun::full_layout(const RunConfig& config) {
  return {.table = ShardTable::kWhole,
          .at = {},
          .dtype = config.dtype,
          .gradients = Gradients::kNone,
          .positions = config.data.max_seq_len};
}

FederatedRun::FederatedRun(Setup setup)
    : setup_(std::move(setup)),
      swapping_(setup_.config.federated.enable_swapping ? Swapping::kOn : Swapping::kOff),
      slot_(slot_of(setup_.world.rank(), setup_.first_round - 1, setup_.world.size(), swapping_)),
      boundary_(setup_.config.federated.rescale ? static_cast<double>(setup_.world.size()) : 1.0),
      schedule_(setup_.config, setup_.train) {
  const RunConfig& config = setup_.config;
  const int ranks = setup_.world.size();
  check_world_size(setup_.model, ranks);
  slice_ = std::make_unique<Llama>(setup_.model, slice_layout(config, slot_, ranks), setup_.backend,
                                   Ports{boundary_, attention_, vocab_});
  trainer_ = std::make_unique<Trainer>(
      *slice_, setup_.backend,
      Trainer::Options{.limits = train_limits(config), .optimizer = adamw_options(config)});
  const bool is_aggregator = setup_.world.rank() == SliceExchange::kAggregator;
  const bool is_plain = Aggregation(config.federated).takes_values_as_they_are();
  if (is_aggregator && (ranks > 1 || !is_plain)) {
    full_ = std::make_unique<Llama>(setup_.model, full_layout(config), setup_.backend,
                                    Ports{full_boundary_, attention_, vocab_});
  }
  if (is_aggregator) {
    evaluator_ = std::make_unique<Executor>(full_ ? *full_ : *slice_, setup_.backend, eval_limits(config));
  }
  find_exact_numbers();
  aggregation_ = std::make_unique<Aggregation>(config.federated, exact_full_);
  Context ctx = trainer_->executor().context();
  ctx.dtype = accumulation_dtype(config.dtype);  // what travels is exact
  exchange_ = std::make_unique<SliceExchange>(setup_.world, ctx, slice_->parameters(),
                                              SliceExchange::Values{exact_slice_, exact_full_});
}

void FederatedRun::find_exact_numbers() {
  // Every parameter of a slice is trained, so there is an entry for each, in their order.
  for (const Adamw::Entry& entry : trainer_->optimizer().entries()) {
    exact_slice_.push_back(has_masters() ? entry.master : entry.shard.value);
  }
  if (setup_.world.rank() != SliceExchange::kAggregator) {
    return;
  }
  if (!full_) {
    exact_full_ = exact_slice_;
    return;
  }
  const DType exact = accumulation_dtype(setup_.config.dtype);
  const auto item = static_cast<std::int64_t>(dtype_bytes(exact));
  if (has_masters()) {
    full_masters_ = setup_.backend.allocate(full_->parameters().numel() * item);
  }
  std::int64_t offset = 0;
  for (const Parameter& parameter : full_->parameters().all()) {
    exact_full_.push_back(has_masters() ? full_masters_.view(offset, exact, parameter.shape())
                                        : parameter.stored_value());
    offset += has_masters() ? parameter.shape().numel() * item : 0;
  }
}

/// Values become the roundings of their masters.
void FederatedRun::round_slice() {
  for (std::size_t i = 0; has_masters() && i < exact_slice_.size(); ++i) {
    copy(trainer_->executor().context(),
         {.from = exact_slice_[i], .to = slice_->parameters().all()[i].stored_value()});
  }
}

void FederatedRun::round_full() {
  for (std::size_t i = 0; has_masters() && full_ && i < exact_full_.size(); ++i) {
    copy(trainer_->executor().context(),
         {.from = exact_full_[i], .to = full_->parameters().all()[i].stored_value()});
  }
}

ParameterSet* FederatedRun::full_parameters() {
  if (setup_.world.rank() != SliceExchange::kAggregator) {
    return nullptr;
  }
  return full_ ? &full_->parameters() : &slice_->parameters();
}

void FederatedRun::load(const LoadParameters& load) {
  const Context ctx = trainer_->executor().context();
  load(ctx, slice_->parameters());
  if (full_) {
    load(ctx, full_->parameters());
  }
  if (!has_masters()) {
    return;
  }
  for (std::size_t i = 0; i < exact_slice_.size(); ++i) {
    copy(ctx, {.from = slice_->parameters().all()[i].stored_value(), .to = exact_slice_[i]});
  }
  for (std::size_t i = 0; full_ && i < exact_full_.size(); ++i) {
    copy(ctx, {.from = full_->parameters().all()[i].stored_value(), .to = exact_full_[i]});
  }
  trainer_->optimizer().keep_masters();
}

void FederatedRun::move_slots(std::int64_t round) {
  const std::int64_t ranks = setup_.world.size();
  const std::int64_t next = slot_of(setup_.world.rank(), round, ranks, swapping_);
  if (next == slot_) {
    return;
  }
  slot_ = next;
  slice_->parameters().relocate(slot_coordinates(slot_, ranks));
  exchange_->distribute(slots_of_round(round, ranks, swapping_), SliceExchange::Scope::kSplit);
  round_slice();
  if (setup_.config.federated.optimizer_state == OptimizerState::kKeep) {
    pass_on_optimizer_state();
  }
}

/// The state of a slot goes with the slot: the next rank down takes over the one this rank leaves.
void FederatedRun::pass_on_optimizer_state() {
  const int ranks = setup_.world.size();
  const int to = (setup_.world.rank() + ranks - 1) % ranks;
  const int from = (setup_.world.rank() + 1) % ranks;
  const TensorView state = trainer_->optimizer().state().reshape({trainer_->optimizer().state().numel()});
  constexpr std::int64_t kChunk = std::int64_t{1} << 20U;  // elements: bounds the second copy
  const Buffer staging = setup_.backend.allocate(std::min(kChunk, state.numel()) *
                                                 static_cast<std::int64_t>(dtype_bytes(state.dtype())));
  for (std::int64_t begin = 0; begin < state.numel(); begin += kChunk) {
    const TensorView part = state.rows(begin, std::min(begin + kChunk, state.numel()));
    const TensorView incoming = staging.view(0, part.dtype(), part.shape());
    setup_.world.send_receive(part, to, incoming, from);
    copy(trainer_->executor().context(), {.from = incoming, .to = part});
  }
  std::int64_t steps = trainer_->optimizer().steps();
  std::int64_t incoming_steps = 0;
  setup_.world.send_receive(TensorView(&steps, DType::kInt64, {1}), to,
                            TensorView(&incoming_steps, DType::kInt64, {1}), from);
  trainer_->optimizer().set_steps(incoming_steps);
}

void FederatedRun::train_locally(std::int64_t round, const OnStep& on_step) {
  const FederatedSection& options = setup_.config.federated;
  const TimelineRange range(setup_.backend, "local training");
  move_slots(round);
  if (options.optimizer_state == OptimizerState::kFresh) {
    trainer_->optimizer().reset(trainer_->executor().context());
  }
  const BatchGeometry geometry = local_geometry(setup_.config);
  const auto seed = static_cast<std::uint64_t>(setup_.config.seed);
  Batch batch;
  for (std::int64_t e = 0; e < options.local_epochs; ++e) {
    const std::int64_t epoch = (round - 1) * options.local_epochs + e;
    setup_.train.start_epoch(epoch);
    for (std::int64_t i = 0; setup_.train.next(batch); ++i) {
      const double lr = schedule_.lr(epoch, i);
      // By what the step is in the whole run, so that a resumed run draws the masks of an uninterrupted one.
      trainer_->executor().context().scalars.dropout_key =
          dropout_key(seed, setup_.world.rank(), schedule_.number(epoch, i));
      const StepResult result = trainer_->step(micro_batches(batch, geometry, {}, 0), batch.valid_tokens, lr);
      if (result.updated) {
        on_step({.round = round, .epoch = epoch, .step = trainer_->steps(), .lr = lr, .result = result});
      }
    }
  }
}

void FederatedRun::collect(std::int64_t round) {
  if (setup_.world.rank() == SliceExchange::kAggregator && !full_) {
    return;  // one rank: its slice is the model
  }
  const TimelineRange range(setup_.backend, "collect the round");
  const std::vector<std::int64_t> slots = slots_of_round(round, setup_.world.size(), swapping_);
  exchange_->collect(slots, *aggregation_);
  if (!aggregation_->takes_values_as_they_are()) {
    exchange_->distribute(slots, SliceExchange::Scope::kEverything);
  }
  round_slice();
  round_full();
}

Evaluation FederatedRun::evaluate() {
  Evaluation result;
  if (evaluator_) {
    result = caravan::evaluate(*evaluator_, *setup_.eval);
  }
  result.loss = setup_.world.all_reduce_value(evaluator_ ? result.loss : 0.0);
  result.perplexity = setup_.world.all_reduce_value(evaluator_ ? result.perplexity : 0.0);
  result.tokens = setup_.world.all_reduce_value(result.tokens);
  return result;
}

}  // namespace caravan
