// The one main of all test programs. Under mpirun every rank runs the same cases; a failed assertion on one
// rank ends the job at once with that rank's report, since the others would wait for it in the next
// collective.
#define CATCH_CONFIG_RUNNER
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "caravan/comm/mpi_session.h"
#include "support/shared_files.h"

namespace {

std::string describe(const Catch::AssertionStats& stats) {
  const Catch::AssertionResult& result = stats.assertionResult;
  const Catch::SourceLineInfo where = result.getSourceInfo();
  std::string text = fmt::format("{}:{}: FAILED", where.file, where.line);
  if (result.hasExpression()) {
    text += fmt::format("\n  {}", result.getExpressionInMacro());
  }
  if (result.hasExpandedExpression()) {
    text += fmt::format("\nwith expansion\n  {}", result.getExpandedExpression());
  }
  if (result.hasMessage()) {
    text += fmt::format("\n  {}", std::string(result.getMessage()));
  }
  for (const Catch::MessageInfo& info : stats.infoMessages) {
    text += fmt::format("\n  {}", info.message);
  }
  return text;
}

bool is_termination(const Catch::AssertionResult& result) {
  return result.getResultType() == Catch::ResultWas::FatalErrorCondition &&
         std::string(result.getMessage()).starts_with("SIGTERM");
}

class AbortAllRanks : public Catch::TestEventListenerBase {
 public:
  using TestEventListenerBase::TestEventListenerBase;

  void testCaseStarting(const Catch::TestCaseInfo& info) override { case_name_ = info.name; }

  bool assertionEnded(const Catch::AssertionStats& stats) override {
    caravan::Communicator& world = caravan::MpiSession::current().world();
    if (is_termination(stats.assertionResult)) {
      std::_Exit(1);  // another rank has failed and reported, and the launcher ends this one
    }
    if (world.size() > 1 && !stats.assertionResult.isOk()) {
      fmt::print(stderr, "[rank {} of {}] {}\n{}\n", world.rank(), world.size(), case_name_, describe(stats));
      caravan::MpiSession::abort(1);
    }
    return false;
  }

 private:
  std::string case_name_;
};

CATCH_REGISTER_LISTENER(AbortAllRanks)

}  // namespace

int main(int argc, char** argv) {
  caravan::MpiSession mpi(argc, argv);
  Catch::Session session;
  if (const int status = session.applyCommandLine(argc, argv); status != 0) {
    return status;
  }
  if (mpi.world().rank() != 0) {
    session.configData().outputFilename = "/dev/null";
  }
  const std::int64_t failures = session.run();
  if (mpi.world().all_reduce_value(failures, caravan::ReduceOp::kMax) != 0) {
    return 1;
  }
  constexpr int kSkipped = 77;
  return caravan::test::something_was_skipped() ? kSkipped : 0;
}
