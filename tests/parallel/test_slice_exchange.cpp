// RANKS 1 2 4
// Where every element of every parameter is after an exchange: each is filled with its tensor's number and
// its global place, so a wrong one names the culprit. Copies carry their rank too and must come out as the
// mean.
#include "caravan/federated/slice_exchange.h"

#include <catch2/catch.hpp>

#include "caravan/comm/mpi_communicator.h"
#include "caravan/federated/slots.h"
#include "kernels/reference/reference_backend.h"

using namespace caravan;

namespace {

ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 5;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.n_layers = 1;
  config.n_heads = 4;
  config.n_kv_heads = 4;
  config.head_dim = 2;
  return config;
}

std::vector<TensorView> values_of(const ParameterSet& parameters) {
  std::vector<TensorView> values;
  for (const Parameter& parameter : parameters.all()) {
    values.push_back(parameter.stored_value());
  }
  return values;
}

/// All ranks' slices of a small model, and the whole on rank 0.
struct Bench {
  Bench()
      : world(MpiCommunicator::over_world()),
        slice(parameter_table(small_config(), ShardTable::kFederated), slot_coordinates(0, world->size()),
              DType::kFloat64, backend, Gradients::kNone),
        full(parameter_table(small_config(), ShardTable::kWhole), {}, DType::kFloat64, backend,
             Gradients::kNone),
        scratch("scratch", allocate_host(64)),
        ctx{backend, stream, scratch, scalars, DType::kFloat64},
        aggregation(FederatedSection{}),
        exchange(*world, ctx, slice,
                 {values_of(slice), world->rank() == 0 ? values_of(full) : std::vector<TensorView>()}) {}

  /// Slots of all ranks when each has moved `turns` places.
  std::vector<std::int64_t> slots(std::int64_t turns) const {
    std::vector<std::int64_t> result;
    for (std::int64_t rank = 0; rank < world->size(); ++rank) {
      result.push_back((rank + turns) % world->size());
    }
    return result;
  }
  void take_slot(const std::vector<std::int64_t>& all) {
    slice.relocate(slot_coordinates(all[static_cast<std::size_t>(world->rank())], world->size()));
  }

  ReferenceBackend backend;
  std::unique_ptr<Communicator> world;
  ParameterSet slice;
  ParameterSet full;
  Arena scratch;
  Stream stream;
  StepScalars scalars;
  Context ctx;
  Aggregation aggregation;
  SliceExchange exchange;
};

/// Calls visit(element, global place in the tensor) for the elements of `view`, which is `region` of the
/// tensor.
template <class Visit>
void for_each_element(const TensorView& view, const Region& region, const Shape& global, const Visit& visit) {
  const Range columns = region.size() > 1 ? region[1] : Range{0, 1};
  const std::int64_t stride = region.size() > 1 ? global[1] : 1;
  double* element = view.data<double>();
  for (std::int64_t row = region[0].begin; row < region[0].end; ++row) {
    for (std::int64_t column = columns.begin; column < columns.end; ++column) {
      visit(*element++, row * stride + column);
    }
  }
}

double origin(std::size_t index, std::int64_t place) {
  return static_cast<double>(index) * 1e4 + static_cast<double>(place);
}

bool is_split(const Parameter& parameter) {
  return parameter.spec().shard.is_split("slot");
}

/// What rank r adds to the elements of its copies.
double mark(int rank) {
  return 0.125 * static_cast<double>(rank * rank);
}

double mean_mark(int ranks) {
  double sum = 0.0;
  for (int rank = 0; rank < ranks; ++rank) {
    sum += mark(rank);
  }
  return sum / static_cast<double>(ranks);
}

void fill_slice(Bench& bench) {
  for (std::size_t index = 0; index < bench.slice.all().size(); ++index) {
    const Parameter& parameter = bench.slice.all()[index];
    const double own = is_split(parameter) ? 0.0 : mark(bench.world->rank());
    for_each_element(parameter.stored_value(), parameter.region(), parameter.spec().shape,
                     [&](double& element, std::int64_t place) { element = origin(index, place) + own; });
  }
}

/// Every element of `parameters` is its origin, plus `copy_mark` where a copy of `like` is not split.
void check_values(const ParameterSet& parameters, const ParameterSet& like, double copy_mark) {
  for (std::size_t index = 0; index < parameters.all().size(); ++index) {
    const Parameter& parameter = parameters.all()[index];
    const double added = is_split(like.all()[index]) ? 0.0 : copy_mark;
    for_each_element(parameter.stored_value(), parameter.region(), parameter.spec().shape,
                     [&](double element, std::int64_t place) {
                       INFO(parameter.name() << " element " << place);
                       CHECK(element == origin(index, place) + added);
                     });
  }
}

}  // namespace

TEST_CASE("collect puts each slot's part in its place and averages the copies", "[federated][exchange]") {
  for (const std::int64_t turns : {0, 1}) {
    Bench bench;
    const auto slots = bench.slots(turns);
    bench.take_slot(slots);
    fill_slice(bench);
    bench.exchange.collect(slots, bench.aggregation);
    const double mean = mean_mark(bench.world->size());
    check_values(bench.slice, bench.slice, mean);
    if (bench.world->rank() == 0) {
      check_values(bench.full, bench.slice, mean);
    }
  }
}

TEST_CASE("distribute hands every rank the part of its new slot, and copies only when asked",
          "[federated][exchange]") {
  using Scope = SliceExchange::Scope;
  for (const Scope scope : {Scope::kSplit, Scope::kEverything}) {
    Bench bench;
    bench.take_slot(bench.slots(0));
    fill_slice(bench);
    bench.exchange.collect(bench.slots(0), bench.aggregation);
    fill_slice(bench);  // the copies differ again
    const auto slots = bench.slots(1);
    bench.take_slot(slots);
    bench.exchange.distribute(slots, scope);
    check_values(bench.slice, bench.slice,
                 scope == Scope::kSplit ? mark(bench.world->rank()) : mean_mark(bench.world->size()));
  }
}
