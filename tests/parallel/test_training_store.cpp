// RANKS 1 2 4 8
// TIMEOUT 300
// The store of parameters as a pair of adjoint maps. F brings what the ranks update to every rank that
// computes with it; F* sums the gradients that those ranks made of it for whoever updates it.
#include "caravan/parallel/training_store.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "caravan/comm/mpi_session.h"
#include "caravan/config/run_config_fields.h"
#include "tests/support/adjoint.h"
#include "tests/support/covering_layouts.h"
#include "tests/support/mesh_runs.h"

using namespace caravan;
using namespace caravan::test;

namespace {

constexpr double kTolerance = 1e-14;  // of the sum of the magnitudes that enter

/// One number for every element of a part, by its place in the whole tensor: copies get the same ones.
std::vector<double> numbers_of(const Parameter& parameter, const Region& region, const CounterRng& rng) {
  const Shape& global = parameter.spec().shape;
  const std::int64_t width = global.rank() == 2 ? global[1] : 1;
  const Range columns = global.rank() == 2 ? region[1] : Range{0, 1};
  std::vector<double> numbers;
  for (std::int64_t row = region[0].begin; row < region[0].end; ++row) {
    for (std::int64_t column = columns.begin; column < columns.end; ++column) {
      numbers.push_back(rng.normal(static_cast<std::uint64_t>(row * width + column)));
    }
  }
  return numbers;
}

std::vector<double> weights_of(const Parameter& parameter, const Region& region) {
  return numbers_of(parameter, region, CounterRng(1, stream_id(parameter.name())));
}

/// The axes along which ranks make different gradients of a tensor, all of which count.
std::vector<std::string> summed_axes(const Parameter& parameter) {
  std::vector<std::string> axes = {"dp_replicate", "dp_shard", "cp"};
  const auto& partial = parameter.spec().shard.partial_axes;
  axes.insert(axes.end(), partial.begin(), partial.end());
  return axes;
}

std::vector<double> gradients_of(const Parameter& parameter, const Coordinates& at,
                                 std::uint64_t micro_batch) {
  std::uint64_t seed = 2 + micro_batch;
  for (const std::string& axis : summed_axes(parameter)) {
    seed = seed * 16 + static_cast<std::uint64_t>(at.index(axis));
  }
  return numbers_of(parameter, parameter.region(), CounterRng(seed, stream_id(parameter.name())));
}

/// Whether this rank's gradient of a tensor is a part of the sum, not another's over again.
bool counts(const Parameter& parameter, const Coordinates& at) {
  const auto& partial = parameter.spec().shard.partial_axes;
  return is_first_copy_in_model(parameter.spec().shard, at) ||
         std::any_of(partial.begin(), partial.end(),
                     [&](const std::string& axis) { return at.count(axis) > 1; });
}

Product over_ranks(Communicator& world, const Product& part) {
  return {world.all_reduce_value(part.value), world.all_reduce_value(part.magnitude)};
}

/// The groups of this rank's parameters, from the last to the first, as a backward pass goes.
std::vector<int> groups_backward(const ParameterSet& parameters) {
  std::set<int, std::greater<>> groups;
  for (const Parameter& parameter : parameters.all()) {
    groups.insert(parameter.spec().group);
  }
  return {groups.begin(), groups.end()};
}

/// Takes every group in turn and adds a micro-batch's gradients: ⟨F x, y⟩ as this rank sees it.
Product visit_groups(SynchronousRun& run, std::uint64_t micro_batch, MicroBatch which) {
  TrainingStore& store = run.store();
  ParameterSet& parameters = run.model().parameters();
  const Coordinates& at = run.layout().at;
  const std::vector<int> groups = groups_backward(parameters);
  Product product;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    store.acquire(groups[i], LeaseUse::kBackward);
    if (i + 1 < groups.size()) {
      store.prefetch(groups[i + 1], LeaseUse::kBackward);
    }
    for (const Parameter& parameter : parameters.all()) {
      if (parameter.spec().group != groups[i]) {
        continue;
      }
      const std::vector<double> y = gradients_of(parameter, at, micro_batch);
      if (counts(parameter, at)) {
        add_products(product, parameter.value().data<double>(), y);
      }
      auto* grad = parameter.grad().data<double>();
      std::transform(y.begin(), y.end(), grad, grad, std::plus<>());
    }
    store.release(groups[i]);
    store.commit(groups[i], which);
  }
  return product;
}

void check_adjoint(Communicator& world, const RunConfig& config, const ModelConfig& model) {
  MeshRun mesh(world, config, model);
  SynchronousRun& run = *mesh;
  run.load([](const Context& /*ctx*/, const std::vector<ParameterShard>& shards) {
    for (const ParameterShard& shard : shards) {
      const std::vector<double> x = weights_of(*shard.parameter, shard.region);
      std::copy(x.begin(), x.end(), shard.value.data<double>());
    }
  });
  Context ctx = run.trainer().update_context();
  Product left, right;
  std::int64_t elements = 0;
  for (int step = 0; step < 2; ++step) {  // the second finds what the first has left
    run.store().zero_gradients(ctx);
    left = visit_groups(run, 0, MicroBatch::kMoreFollow);
    const Product more = visit_groups(run, 1, MicroBatch::kLast);
    run.store().finish_gradients();
    left = over_ranks(world, {left.value + more.value, left.magnitude + more.magnitude});
    right = {};
    elements = 0;
    for (const ParameterShard& shard : run.store().shards()) {
      if (shard.is_first_copy) {
        add_products(right, shard.grad.data<double>(), weights_of(*shard.parameter, shard.region));
        elements += shard.value.numel();
      }
    }
    right = over_ranks(world, right);
    CAPTURE(step, left.value, right.value);
    CHECK(adjoint_error(left, right) <= kTolerance);
    CHECK(left.magnitude > 1e4);
  }
  std::int64_t all = 0;
  for (const ParameterSpec& spec : parameter_table(model, ShardTable::kWhole)) {
    all += spec.shape.numel();
  }
  CHECK(world.all_reduce_value(elements) == all);
}

}  // namespace

TEST_CASE("gathering weights and reducing gradients are adjoint in every layout", "[parallel][adjoint]") {
  Communicator& world = MpiSession::current().world();
  int layouts = 0;
  for (const CoveringLayout& layout : covering_layouts()) {
    if (layout.ranks() != world.size()) {
      continue;
    }
    ++layouts;
    const ModelConfig model = mesh_model(layout.is_tied, layout.n_layers(), layout.n_kv_heads);
    for (const CpuOffload offload :
         {CpuOffload::kNone, CpuOffload::kOptimizer, CpuOffload::kParametersAndOptimizer}) {
      const bool has_it = offload == CpuOffload::kNone || layout.parallel.dp_shard > 1;
      if (!has_it || (offload == CpuOffload::kParametersAndOptimizer && layout.parallel.zero_stage != 3)) {
        continue;
      }
      CAPTURE(layout.name(), enum_name(offload));
      RunConfig config = mesh_config(layout.parallel, DType::kFloat64, 8, 21);
      config.parallel.cpu_offload = offload;
      config.parallel.ddp_bucket_mib = 0.1;  // several buckets
      check_adjoint(world, config, model);
    }
  }
  CHECK(layouts > 0);
}
