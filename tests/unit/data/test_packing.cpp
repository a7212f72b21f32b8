#include "caravan/data/packing.h"

#include <catch2/catch.hpp>

#include "caravan/core/counter_rng.h"
#include "caravan/core/error.h"

using namespace caravan;
using Ids = std::vector<std::int32_t>;

namespace {

TokenRow row_of(const Ids& ids) {
  TokenRow row;
  row.append_document(ids);
  return row;
}

}  // namespace

TEST_CASE("rows are padded to the longest row of the batch by length", "[data][packing]") {
  const std::vector<TokenRow> rows = {row_of({5, 9, 9}), row_of({1, 2, 3, 9, 4}), row_of({7})};
  const Batch batch = make_batch(rows, 9);
  CHECK(batch.batch == 3);
  CHECK(batch.seq_len == 4);
  CHECK(batch.ids == Ids{5, 9, 9, 9, 1, 2, 3, 9, 9, 9, 9, 9});
  CHECK(batch.targets == Ids{9, 9, 9, 9, 2, 3, 9, 4, 9, 9, 9, 9});
  // The real tokens equal to pad_id count.
  CHECK(batch.target_weights == std::vector<float>{1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0});
  CHECK(batch.index == Ids{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
  CHECK(batch.document_start == Ids(12, 0));
  CHECK(batch.valid_tokens == 6);
}

TEST_CASE("a batch without any target has one padded place per row", "[data][packing]") {
  const std::vector<TokenRow> rows = {row_of({}), row_of({3})};
  const Batch batch = make_batch(rows, 0);
  CHECK(batch.n_tokens() == 2);
  CHECK(batch.valid_tokens == 0);
  CHECK(batch.target_weights == std::vector<float>{0, 0});
}

TEST_CASE("a packed row holds whole documents and knows where each begins", "[data][packing]") {
  RowPacker packer(6);
  CHECK_FALSE(packer.add(Ids{1, 2, 3}));
  CHECK_FALSE(packer.add(Ids{4}));
  CHECK_FALSE(packer.add(Ids{5, 6, 7, 8}));  // 2 + 3 places of 6
  const auto first = packer.add(Ids{9, 10, 11});
  REQUIRE(first);
  CHECK(first->inputs == Ids{1, 2, 5, 6, 7});
  CHECK(first->targets == Ids{2, 3, 6, 7, 8});
  CHECK(first->document_start == Ids{0, 0, 2, 2, 2});
  const auto second = packer.add(Ids{1, 2, 3, 4, 5, 6, 7});
  REQUIRE(second);
  CHECK(second->inputs == Ids{9, 10});
  const auto last = packer.finish();
  REQUIRE(last);
  CHECK(last->inputs == Ids{1, 2, 3, 4, 5, 6});
  CHECK_FALSE(packer.finish());
  CHECK_THROWS_AS(packer.add(Ids(8, 1)), InternalError);
  const std::vector<TokenRow> rows = {*last, *first};
  const Batch batch = make_batch(rows, 0);
  CHECK(batch.document_start == Ids{0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 5});
  CHECK(batch.valid_tokens == 11);
}

TEST_CASE("packing keeps every pair, in order, and no target crosses documents", "[data][packing]") {
  const CounterRng rng(7, stream_id("packing"));
  constexpr std::int64_t kCapacity = 31;
  RowPacker packer(kCapacity);
  std::vector<TokenRow> rows;
  Ids wanted_inputs;
  Ids wanted_targets;
  for (std::uint64_t document = 0; document < 2000; ++document) {
    Ids ids;
    for (std::uint64_t place = 0; place < rng.below(document, kCapacity + 2); ++place) {
      ids.push_back(static_cast<std::int32_t>(document * 1000 + place));  // the value tells its origin
    }
    for (std::size_t place = 0; place + 1 < ids.size(); ++place) {
      wanted_inputs.push_back(ids[place]);
      wanted_targets.push_back(ids[place + 1]);
    }
    if (auto row = packer.add(ids)) {
      rows.push_back(std::move(*row));
    }
  }
  rows.push_back(packer.finish().value());
  Ids inputs;
  Ids targets;
  for (const TokenRow& row : rows) {
    REQUIRE(row.length() > 0);
    REQUIRE(row.length() <= kCapacity);
    for (std::size_t place = 0; place < row.inputs.size(); ++place) {
      const auto start = static_cast<std::size_t>(row.document_start[place]);
      REQUIRE(start <= place);
      REQUIRE(row.inputs[start] == row.inputs[place] / 1000 * 1000);
      REQUIRE(row.inputs[place] - row.inputs[start] == static_cast<std::int32_t>(place - start));
      REQUIRE(row.targets[place] == row.inputs[place] + 1);
    }
    inputs.insert(inputs.end(), row.inputs.begin(), row.inputs.end());
    targets.insert(targets.end(), row.targets.begin(), row.targets.end());
  }
  CHECK(inputs == wanted_inputs);
  CHECK(targets == wanted_targets);
}
