#include "caravan/train/verify_report.h"

#include <catch2/catch.hpp>
#include <limits>

#include "caravan/io/hdf5_file.h"
#include "support/temporary_folder.h"

using namespace caravan;
using namespace caravan::test;

namespace {

Difference row(const std::string& name, double relative, double tolerance = 1e-6) {
  Difference difference;
  difference.name = name;
  difference.rank = 1;
  difference.unequal = relative == 0.0 ? 0 : 3;
  difference.mean_absolute = relative / 2;
  difference.relative = relative;
  difference.tolerance = tolerance;
  difference.detail = "element [0, 2] is 1 on rank 1 and 2 in the whole tensor";
  return difference;
}

Verification sound() {
  Verification result;
  result.weights = {row("layers.0.ffn_norm.weight", 0.0, 0.0)};
  result.outputs = {row("layers.0.attention", 1e-8), row("layers.1.attention", 3e-8), row("logits", 2e-8)};
  result.gradients = {row("norm.weight", 0.0)};
  result.losses = {row("loss of step 1", 1e-9), row("gradient norm of step 1", 1e-8)};
  result.top_k = {{1, 1.0}, {5, 0.998}};
  result.steps = {{1, 5.5, 5.5, 1.25, 1.25}};
  return result;
}

VerifyAttributes attributes() {
  return {.ranks = 4,
          .mesh = "tp 4",
          .dtype = "float32",
          .config = "seed: 1\n",
          .commit = "0123abc",
          .versions = "caravan 0.1.0",
          .hosts = "a,b",
          .start_time = "2031-05-04T18:30:05Z",
          .end_time = "2031-05-04T18:31:05Z"};
}

}  // namespace

TEST_CASE("the table has a row per kind of tensor, the furthest layer, every step, and the result",
          "[train][verify]") {
  const std::string text = describe(sound(), attributes());
  CHECK(text.find("verify: 4 ranks (tp 4), float32") == 0);
  CHECK(text.find("all 1 tensors are each rank's exact part") != std::string::npos);
  CHECK(text.find("layers.*.attention") != std::string::npos);
  CHECK(text.find("layers.1.attention, rank 1") != std::string::npos);
  CHECK(text.find("layers.0.attention, rank 1") == std::string::npos);
  CHECK(text.find("top 1 100.00 %, top 5 99.80 %\n") != std::string::npos);
  CHECK(text.find("result: the mesh computes the model of one rank\n") != std::string::npos);
}

TEST_CASE("a step's row has the loss or the norm, whichever is nearer to its own tolerance",
          "[train][verify]") {
  Verification result = sound();
  result.losses = {row("loss of step 1", 8e-7, 1e-6), row("gradient norm of step 1", 2e-6, 1e-5)};
  const auto row_of = [&] {
    const std::string text = describe(result, attributes());
    const std::size_t begin = text.find("5.50000000");
    return text.substr(begin, text.find('\n', begin) - begin);
  };
  CHECK_THAT(row_of(), Catch::EndsWith("8.0e-07    1.0e-06"));
  result.losses[1].relative = 9e-6;
  CHECK_THAT(row_of(), Catch::EndsWith("9.0e-06    1.0e-05"));
  result.losses[1].relative = 2e-5;
  CHECK_THAT(row_of(), Catch::EndsWith("2.0e-05    1.0e-05  DIFFERS"));
  result.losses[0].relative = std::numeric_limits<double>::quiet_NaN();
  CHECK_THAT(row_of(), Catch::EndsWith("nan    1.0e-06  DIFFERS"));
}

TEST_CASE("the first difference is named in the order of computation", "[train][verify]") {
  Verification result = sound();
  CHECK(result.first_difference() == nullptr);
  result.losses[0].relative = 1.0;
  CHECK(result.first_difference()->name == "loss of step 1");
  result.outputs[2].relative = std::numeric_limits<double>::quiet_NaN();
  CHECK(result.first_difference()->name == "logits");
  result.weights[0].unequal = 1;
  CHECK(result.first_difference()->name == "layers.0.ffn_norm.weight");
  const std::string text = describe(result, attributes());
  CHECK(text.find("element [0, 2] is 1 on rank 1 and 2 in the whole tensor  DIFFERS") != std::string::npos);
  CHECK(text.find("result: layers.0.ffn_norm.weight is not the exact part of the whole tensor") !=
        std::string::npos);
}

TEST_CASE("the file has every tensor and what was run", "[train][verify]") {
  const TemporaryFolder folder;
  Verification result = sound();
  result.gradients[0].relative = 0.5;
  write_verification(folder / kVerifyFileName, result, attributes());
  const Hdf5File file = Hdf5File::open(folder / kVerifyFileName);
  CHECK_FALSE(file.bool_attribute("equal"));
  CHECK(file.text_attribute("first_difference") == "norm.weight");
  CHECK(file.text_attribute("mesh") == "tp 4");
  CHECK(file.int64_attribute("ranks") == 4);
  CHECK(file.read_text("/outputs/name") ==
        std::vector<std::string>{"layers.0.attention", "layers.1.attention", "logits"});
  CHECK(file.read_float64("/outputs/relative") == std::vector<double>{1e-8, 3e-8, 2e-8});
  CHECK(file.read_int64("/gradients/rank") == std::vector<std::int64_t>{1});
  CHECK(file.read_float64("/top_k/agreement") == std::vector<double>{1.0, 0.998});
  CHECK(file.read_float64("/steps/one_rank_loss") == std::vector<double>{5.5});
  CHECK(file.read_float64("/losses/tolerance").size() == 2);
}
