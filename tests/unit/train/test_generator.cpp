#include "caravan/train/generator.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/comm/self_communicator.h"
#include "kernels/cpu/cpu_backend.h"

using namespace caravan;

namespace {

std::vector<std::int32_t> generated(KvCache cache, const SamplingOptions& sampling, std::int64_t count,
                                    std::int64_t places = 40) {
  const auto backend = make_cpu_backend();
  SelfCommunicator alone;
  Generator generator(*model_preset("tiny"), DType::kFloat32, *backend, places, cache,
                      [](const Context& ctx, ParameterSet& parameters) {
                        initialise(ctx, whole_shards(parameters), 11);
                        // Random weights of deviation 0.02 give almost flat logits; larger ones make choices
                        // clear.
                        for (Parameter& parameter : parameters.all()) {
                          auto* values = parameter.stored_value().data<float>();
                          for (std::int64_t i = 0; i < parameter.shape().numel(); ++i) {
                            values[i] *= parameter.shape().rank() == 2 ? 8.0F : 1.0F;
                          }
                        }
                      },
                      {alone});
  const std::vector<std::int32_t> prompt = {3, 1, 4, 1, 5};
  return generator.generate(prompt, count, {}, sampling, [](std::int32_t) { return true; });
}

}  // namespace

TEST_CASE("the cache gives the ids of running the whole row", "[train][generator]") {
  const auto greedy = generated(KvCache::kOn, {}, 30);
  CHECK(greedy.size() == 30);
  CHECK(greedy == generated(KvCache::kOff, {}, 30));
  const SamplingOptions sampled{.temperature = 0.9, .top_k = 40, .top_p = 0.95, .seed = 5};
  CHECK(generated(KvCache::kOn, sampled, 30) == generated(KvCache::kOff, sampled, 30));
  CHECK(generated(KvCache::kOn, sampled, 30) != greedy);
}

TEST_CASE("the cache gives the same ids over several blocks of keys", "[train][generator]") {
  const SamplingOptions sampled{.temperature = 0.9, .seed = 6};  // greedy choices soon repeat themselves
  const auto ids = generated(KvCache::kOn, sampled, 195, 200);
  CHECK(ids.size() == 195);
  CHECK(ids == generated(KvCache::kOff, sampled, 195, 200));
}

TEST_CASE("generation ends when the row is full", "[train][generator]") {
  CHECK(generated(KvCache::kOn, {}, 100).size() == 35);  // 40 places, 5 of them the prompt
}

TEST_CASE("sampling follows temperature, top_k and top_p", "[train][generator]") {
  const std::vector<double> logits = {0.0, 2.0, 1.0, -1.0};
  CHECK(choose_token(logits, {}, 0) == 1);
  CHECK(choose_token(std::vector<double>{1.0, 3.0, 3.0}, {}, 0) == 1);  // the lowest of equals
  std::array<int, 4> counts{};
  std::array<int, 4> top2{};
  std::array<int, 4> nucleus{};
  constexpr int kDraws = 20000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    ++counts.at(static_cast<std::size_t>(choose_token(logits, {.temperature = 1.0, .seed = 1}, i)));
    ++top2.at(static_cast<std::size_t>(choose_token(logits, {.temperature = 1.0, .top_k = 2, .seed = 1}, i)));
    ++nucleus.at(
        static_cast<std::size_t>(choose_token(logits, {.temperature = 1.0, .top_p = 0.5, .seed = 1}, i)));
  }
  const double total = 1.0 + std::exp(2.0) + std::exp(1.0) + std::exp(-1.0);
  for (std::size_t id = 0; id < 4; ++id) {
    const double p = std::exp(logits[id]) / total;
    CHECK(std::abs(counts.at(id) - kDraws * p) < 5.0 * std::sqrt(kDraws * p * (1.0 - p)));
  }
  CHECK(top2[0] + top2[3] == 0);
  CHECK(top2[1] > top2[2]);
  CHECK(nucleus[1] == kDraws);  // 0.64 of the probability alone
}
