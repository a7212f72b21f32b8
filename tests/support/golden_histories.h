// The federated histories of the shared references, on any backend.
#pragma once

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "support/federated_runs.h"
#include "support/goldens.h"

namespace caravan::test {

inline RunConfig golden_config(const std::string& folder, const nlohmann::json& reference, DType dtype,
                               bool swapping) {
  RunConfig config;
  config.dtype = dtype;
  config.model.checkpoint = folder + "/meta";
  config.data.max_seq_len = 48;
  config.data.shuffle = false;
  config.optimizer.lr = reference.at("lr");
  config.optimizer.weight_decay = reference.at("weight_decay");
  config.federated.rounds = reference.at("rounds");
  config.federated.local_epochs = reference.at("epochs");
  config.federated.batch_size = reference.at("bs");
  config.federated.enable_swapping = swapping;
  return config;
}

/// Every history of `model` for this many ranks, with and without swapping, in each dtype within its relative
/// tolerance. Skipped where the references are absent. Collective.
inline void check_golden_histories(const std::string& model, Communicator& world,
                                   const std::vector<std::pair<DType, double>>& dtypes,
                                   const std::function<std::unique_ptr<Backend>()>& make_backend) {
  const auto golden = shared_path("goldens/" + model);
  if (!golden) {
    return;
  }
  const nlohmann::json reference = read_json(*golden + "/reference.json").at("federated");
  for (const bool swapping : {false, true}) {
    if (swapping && world.size() == 1) {
      continue;
    }
    const nlohmann::json history =
        reference.at("history").at(fmt::format("world_size={},swap={}", world.size(), swapping));
    for (const auto& [dtype, tolerance] : dtypes) {
      const SharedFolder folder(world);
      if (world.rank() == 0) {
        write_golden_rows(*golden, "train", folder / "train.jsonl");
        write_golden_rows(*golden, "test", folder / "test.jsonl");
      }
      world.barrier();
      RunConfig config = golden_config(*golden, reference, dtype, swapping);
      config.data.train = {folder / "train.jsonl"};
      config.data.eval = {folder / "test.jsonl"};
      config.output.dir = folder / "run";
      const RunResult result = run_federated_config(config, world, make_backend());
      if (world.rank() != 0) {
        continue;
      }
      REQUIRE(result.history.size() == history.size());
      for (std::size_t round = 0; round < history.size(); ++round) {
        const double expected = history.at(round);
        CAPTURE(model, swapping, round, expected, result.history[round].loss, dtype_name(dtype));
        CHECK(std::abs(result.history[round].loss - expected) <= tolerance * expected);
        // d exp(loss) / exp(loss) = d loss
        CHECK(result.history[round].perplexity ==
              Approx(std::exp(expected)).epsilon(2.0 * tolerance * expected));
      }
    }
  }
}

}  // namespace caravan::test
