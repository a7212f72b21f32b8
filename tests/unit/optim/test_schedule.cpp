// Expected rates: torch.optim.lr_scheduler.LambdaLR with torchtitan's multiplier; the decays are also those
// of transformers' get_linear_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup and
// get_wsd_schedule (torch 2.15, transformers 5.24).
#include "caravan/optim/schedule.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "caravan/core/error.h"

using namespace caravan;

namespace {

constexpr double kTolerance = 1e-15;  // relative: a few roundings

OptimizerSection with(ScheduleSection schedule) {
  OptimizerSection optimizer;
  optimizer.lr = 0.003;
  optimizer.schedule = schedule;
  return optimizer;
}

void check_rates(const ScheduleSection& schedule, const std::vector<double>& expected) {
  const OptimizerSection optimizer = with(schedule);
  const auto total = static_cast<std::int64_t>(expected.size());
  for (std::int64_t step = 1; step <= total; ++step) {
    const double rate = scheduled_lr(optimizer, step, total);
    const double wanted = expected[static_cast<std::size_t>(step - 1)];
    CAPTURE(step, rate, wanted);
    CHECK(std::abs(rate - wanted) <= kTolerance * wanted);
  }
}

}  // namespace

TEST_CASE("the constant rate is lr to the bit, after a linear warm-up", "[optim][schedule]") {
  for (const std::int64_t step : {1, 2, 1000}) {
    CHECK(scheduled_lr(with({}), step, 3) == 0.003);
  }
  check_rates({LrSchedule::kConstant, 4, {}, 0.0}, {0.00075, 0.0015, 0.00225, 0.003, 0.003, 0.003});
  CHECK(scheduled_lr(with({LrSchedule::kConstant, 1, {}, 0.0}), 1, 9) == 0.003);
}

TEST_CASE("linear, cosine and wsd rates are torchtitan's", "[optim][schedule]") {
  check_rates({LrSchedule::kLinear, 4, {}, 0.1},
              {0.00075, 0.0015, 0.0022500000000000003, 0.003, 0.003, 0.0026625, 0.0023250000000000002,
               0.0019875, 0.0016500000000000002, 0.0013125, 0.0009750000000000001, 0.0006375});
  check_rates({LrSchedule::kLinear, 4, {}, 0.0},
              {0.00075, 0.0015, 0.0022500000000000003, 0.003, 0.003, 0.002625, 0.0022500000000000003,
               0.001875, 0.0015, 0.0011250000000000001, 0.00075, 0.000375});
  check_rates({LrSchedule::kCosine, 4, {}, 0.1},
              {0.00075, 0.0015, 0.0022500000000000003, 0.003, 0.003, 0.0028972373688902374,
               0.002604594154601839, 0.002166622633692871, 0.0016500000000000002, 0.0011333773663071288,
               0.0006954058453981609, 0.0004027626311097629});
  check_rates({LrSchedule::kWsd, 4, 5, 0.2},
              {0.00075, 0.0015, 0.0022500000000000003, 0.003, 0.003, 0.003, 0.003, 0.003, 0.00252,
               0.0020399999999999997, 0.0015600000000000002, 0.00108});
}

TEST_CASE("wsd decays over a tenth of the run when nothing is said", "[optim][schedule]") {
  const auto rates_of = [](ScheduleSection schedule, std::int64_t total) {
    std::vector<double> rates;
    for (std::int64_t step = 1; step <= total; ++step) {
      rates.push_back(scheduled_lr(with(schedule), step, total));
    }
    return rates;
  };
  CHECK(rates_of({LrSchedule::kWsd, 3, {}, 0.1}, 40) == rates_of({LrSchedule::kWsd, 3, 4, 0.1}, 40));
  CHECK(rates_of({LrSchedule::kWsd, 3, {}, 0.1}, 41) == rates_of({LrSchedule::kWsd, 3, 5, 0.1}, 41));
  CHECK(rates_of({LrSchedule::kWsd, 3, 4, 0.1}, 40) != rates_of({LrSchedule::kWsd, 3, 5, 0.1}, 40));
  // The warm-up goes first where both do not fit.
  CHECK(rates_of({LrSchedule::kWsd, 4, {}, 0.1}, 4) == rates_of({LrSchedule::kConstant, 4, {}, 0.0}, 4));
}

TEST_CASE("rates stay in range at the edges", "[optim][schedule]") {
  for (const LrSchedule name : {LrSchedule::kLinear, LrSchedule::kCosine, LrSchedule::kWsd}) {
    for (std::int64_t warmup = 0; warmup <= 6; ++warmup) {
      for (std::int64_t total = std::max<std::int64_t>(warmup, 1); total <= 12; ++total) {
        const OptimizerSection optimizer = with({name, warmup, {}, 0.25});
        double before = 0.0;
        for (std::int64_t step = 1; step <= total; ++step) {
          const double rate = scheduled_lr(optimizer, step, total);
          CAPTURE(warmup, total, step);
          CHECK(rate > 0.25 * 0.003 * (step <= warmup ? 0.0 : 1.0));
          CHECK(rate <= 0.003);
          CHECK((step <= warmup ? rate > before : step <= warmup + 1 || rate <= before));
          before = rate;
        }
        if (total > warmup) {
          CHECK(scheduled_lr(optimizer, total + 1, total) == Approx(0.25 * 0.003).epsilon(1e-14));
          CHECK(scheduled_lr(optimizer, total + 100, total) == Approx(0.25 * 0.003).epsilon(1e-14));
        }
      }
    }
  }
}

TEST_CASE("a schedule longer than the run is refused with both numbers", "[optim][schedule]") {
  CHECK_NOTHROW(check_schedule({LrSchedule::kWsd, 6, 4, 0.0}, 10));
  CHECK_NOTHROW(check_schedule({LrSchedule::kWsd, 6, 5, 0.0}, 0));  // rounds: 0
  CHECK_THROWS_WITH(
      check_schedule({LrSchedule::kWsd, 6, 5, 0.0}, 10),
      "optimizer.schedule: 6 warm-up steps and 5 decay steps do not fit in a run of 10 steps; lower "
      "optimizer.schedule.warmup_steps or decay_steps, or train longer");
  CHECK_THROWS_AS(check_schedule({LrSchedule::kConstant, 2, {}, 0.0}, 1), ConfigError);
}
