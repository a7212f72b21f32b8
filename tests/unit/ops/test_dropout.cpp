// Masks as numbers: how many elements they drop, that they are independent of each other, and that an
// element's fate depends on nothing but what it is.
#include "caravan/ops/dropout.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "caravan/core/error.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/reference_backend.h"

using namespace caravan;

namespace {

// How far a frequency may be from its expectation, in standard deviations of that many independent draws.
constexpr double kDeviations = 5.0;

struct Tokens {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> places;

  /// `rows` rows of `length` tokens.
  static Tokens whole(std::int32_t row_count, std::int32_t length) {
    Tokens tokens;
    for (std::int32_t row = 0; row < row_count; ++row) {
      for (std::int32_t place = 0; place < length; ++place) {
        tokens.rows.push_back(row);
        tokens.places.push_back(place);
      }
    }
    return tokens;
  }
};

struct Masks {
  std::unique_ptr<Backend> backend = make_cpu_backend();
  Stream stream;
  Arena scratch{"scratch", allocate_host(64)};
  StepScalars scalars;

  /// The op on `value` everywhere: [tokens, width].
  std::vector<double> run(Tokens tokens, std::int64_t width, double rate, std::uint32_t site = 0,
                          double value = 1.0) {
    const auto count = static_cast<std::int64_t>(tokens.rows.size());
    std::vector<double> x(static_cast<std::size_t>(count * width), value);
    const TensorView view(x.data(), DType::kFloat64, {count, width});
    const Context ctx{*backend, stream, scratch, scalars, DType::kFloat64};
    dropout(ctx, {.x = view,
                  .y = view,
                  .rows = {tokens.rows.data(), DType::kInt32, {count}},
                  .places = {tokens.places.data(), DType::kInt32, {count}},
                  .site = site,
                  .rate = rate,
                  .scalars = &scalars});
    return x;
  }
};

/// Within kDeviations of `probability`.
void check_frequency(std::int64_t hits, std::int64_t draws, double probability) {
  const double deviation = std::sqrt(probability * (1.0 - probability) * static_cast<double>(draws));
  CAPTURE(hits, draws, probability);
  CHECK(std::abs(static_cast<double>(hits) - probability * static_cast<double>(draws)) <=
        kDeviations * deviation);
}

std::int64_t zeros(const std::vector<double>& values) {
  return std::count(values.begin(), values.end(), 0.0);
}

/// Where both masks drop.
std::int64_t common_zeros(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), std::int64_t{0}, std::plus<>(),
                            [](double x, double y) { return x == 0.0 && y == 0.0 ? 1 : 0; });
}

}  // namespace

TEST_CASE("a part of the elements as large as the rate is dropped, in every feature and token",
          "[ops][dropout]") {
  Masks masks;
  const std::int64_t width = 132;
  const Tokens tokens = Tokens::whole(16, 128);
  const auto count = static_cast<std::int64_t>(tokens.rows.size());
  for (const double rate : {0.01, 0.1, 0.5, 0.9}) {
    const std::vector<double> y = masks.run(tokens, width, rate);
    check_frequency(zeros(y), count * width, rate);
    for (std::int64_t d = 0; d < width; ++d) {
      std::int64_t dropped = 0;
      for (std::int64_t t = 0; t < count; ++t) {
        dropped += y[static_cast<std::size_t>(t * width + d)] == 0.0 ? 1 : 0;
      }
      check_frequency(dropped, count, rate);
    }
  }
}

TEST_CASE("what stays is divided by the part that stays, what goes is zero even when it is not finite",
          "[ops][dropout]") {
  Masks masks;
  const Tokens tokens = Tokens::whole(2, 8);
  for (const double rate : {0.0, 0.1, 0.75}) {
    for (const double value : masks.run(tokens, 37, rate, 0, -3.0)) {
      CHECK((value == 0.0 || value == -3.0 * (1.0 / (1.0 - rate))));
    }
  }
  CHECK(zeros(masks.run(tokens, 37, 0.0)) == 0);
  const std::vector<double> infinite = masks.run(tokens, 37, 0.5, 0, HUGE_VAL);
  CHECK(zeros(infinite) > 0);
  CHECK(std::none_of(infinite.begin(), infinite.end(), [](double value) { return std::isnan(value); }));
}

TEST_CASE("a token's mask depends on its row and place, not on where and with whom it is computed",
          "[ops][dropout]") {
  Masks masks;
  masks.scalars.dropout_key = dropout_key(42, 0, 3);
  const std::int64_t width = 70;
  const Tokens tokens = Tokens::whole(3, 10);
  const std::vector<double> whole = masks.run(tokens, width, 0.3, 5);
  const auto same = GENERATE(true, false);  // the reference as well
  if (same) {
    masks.backend = std::make_unique<ReferenceBackend>();
  }
  for (std::size_t t = tokens.rows.size(); t-- > 0;) {
    const std::vector<double> alone = masks.run({{tokens.rows[t]}, {tokens.places[t]}}, width, 0.3, 5);
    const auto begin = whole.begin() + static_cast<std::ptrdiff_t>(t) * width;
    CHECK(std::equal(alone.begin(), alone.end(), begin));
  }
}

TEST_CASE("masks of other steps, seeds, learners, sites, rows and places are independent", "[ops][dropout]") {
  Masks masks;
  const std::int64_t width = 128;
  const double rate = 0.3;
  const Tokens tokens = Tokens::whole(16, 64);
  Tokens next_row = tokens;
  Tokens next_place = tokens;
  for (std::size_t t = 0; t < tokens.rows.size(); ++t) {
    next_row.rows[t] += 1;
    next_place.places[t] += 1;
  }
  const auto of_key = [&](std::uint64_t key) {
    masks.scalars.dropout_key = key;
    return masks.run(tokens, width, rate);
  };
  const std::uint64_t key = dropout_key(42, 0, 1);
  const std::vector<double> mask = of_key(key);
  const std::vector<std::vector<double>> others = {of_key(dropout_key(42, 0, 2)),
                                                   of_key(dropout_key(43, 0, 1)),
                                                   of_key(dropout_key(42, 1, 1)),
                                                   of_key(key ^ (std::uint64_t{1} << 63U)),
                                                   (of_key(key), masks.run(tokens, width, rate, 1)),
                                                   masks.run(next_row, width, rate),
                                                   masks.run(next_place, width, rate)};
  const auto count = static_cast<std::int64_t>(mask.size());
  for (const std::vector<double>& other : others) {
    check_frequency(common_zeros(mask, other), count, rate * rate);
  }
  CHECK(of_key(key) == mask);
}

TEST_CASE("dropout refuses a rate of one, and tokens that do not say which they are", "[ops][dropout]") {
  Masks masks;
  CHECK_THROWS_WITH(masks.run(Tokens::whole(1, 2), 4, 1.0), Catch::Contains("dropout: the rate is 1"));
  CHECK_THROWS_WITH(masks.run(Tokens::whole(1, 2), 4, -0.5), Catch::Contains("dropout: the rate is -0.5"));
  std::vector<double> x(8);
  const TensorView view(x.data(), DType::kFloat64, {2, 4});
  const Context ctx{*masks.backend, masks.stream, masks.scratch, masks.scalars, DType::kFloat64};
  CHECK_THROWS_AS(
      dropout(ctx, {.x = view, .y = view, .rows = {}, .places = {}, .rate = 0.5, .scalars = nullptr}),
      InternalError);
}
