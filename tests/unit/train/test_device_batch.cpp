// What attention may take for granted of a batch.
#include "caravan/train/device_batch.h"

#include <catch2/catch.hpp>

#include "caravan/core/error.h"
#include "caravan/data/batch_slice.h"
#include "caravan/data/packing.h"
#include "caravan/train/step_batches.h"
#include "kernels/cpu/cpu_backend.h"

using namespace caravan;

namespace {

/// A row of one document for each length; a list of lengths is several documents in a row.
Batch batch_of(const std::vector<std::vector<std::size_t>>& rows) {
  std::vector<TokenRow> made;
  for (const auto& documents : rows) {
    TokenRow& row = made.emplace_back();
    for (const std::size_t tokens : documents) {
      row.append_document(std::vector<std::int32_t>(tokens + 1, 1));
    }
  }
  return make_batch(made, 0);
}

}  // namespace

TEST_CASE("rows of one document are plainly causal, whatever stands behind their last target", "[train]") {
  CHECK(mask_of(batch_of({{5}, {3}})) == MaskKind::kCausal);  // 3 tokens and padding
  CHECK(mask_of(batch_of({{5}, {}})) == MaskKind::kCausal);   // a sample too short to have a target
  const Batch longer = take_rows(batch_of({{5}, {3}}), 0, 3, 8, 0);
  REQUIRE(longer.document_start.back() != 0);  // padding that sees itself alone
  CHECK(mask_of(longer) == MaskKind::kCausal);
  Batch masked = batch_of({{5}});
  masked.target_weights = {0.0F, 0.0F, 1.0F, 0.0F, 1.0F};  // a prompt that is not trained on
  CHECK(mask_of(masked) == MaskKind::kCausal);
}

TEST_CASE("several documents in a row, parts of rows and continued rows are not", "[train]") {
  CHECK(mask_of(batch_of({{6}, {3, 3}})) == MaskKind::kGeneral);
  Batch untrained = batch_of({{3, 3}});
  untrained.target_weights = {1.0F, 1.0F, 1.0F, 0.0F, 0.0F, 1.0F};  // its document matters to the last one
  CHECK(mask_of(untrained) == MaskKind::kGeneral);
  const Batch whole = batch_of({{8}});
  CHECK(mask_of(take_tokens(whole, 0, 2)) == MaskKind::kGeneral);
  CHECK(mask_of(take_tokens(whole, 1, 2)) == MaskKind::kGeneral);
  Batch continued = batch_of({{4}});
  for (std::int32_t& index : continued.index) {
    index += 4;
  }
  CHECK(mask_of(continued) == MaskKind::kGeneral);
}

TEST_CASE("an uploaded batch carries its kind of mask, one that is only planned has the general kind",
          "[train]") {
  const auto backend = make_cpu_backend();
  DeviceBatch memory(*backend, {.tokens = 16});
  Stream stream;
  CHECK(memory.upload(batch_of({{6}, {3, 3}}), stream).mask == MaskKind::kGeneral);
  CHECK(memory.upload(batch_of({{6}}), stream).mask == MaskKind::kCausal);
  CHECK(memory.shape(2, 6).mask == MaskKind::kGeneral);
}

TEST_CASE("an uploaded part of rows has the order of all parts' keys, one that is only planned its views",
          "[train]") {
  const auto backend = make_cpu_backend();
  const ContextSplit split = {.ranks = 2};
  DeviceBatch memory(*backend, {.tokens = 16, .context = split});
  CHECK(memory.bytes() == (6 + key_numbers(split)) * 16 * 4);
  Stream stream;
  for (const std::int64_t part : {0, 1}) {
    const TokenBatch tokens = memory.upload(take_tokens(batch_of({{8}, {8}}), part, 2), stream);
    const ContextKeys& keys = keys_of(tokens, split);
    REQUIRE(keys.index.numel() == 16);
    // Of each row the first part has places 0, 1, 6, 7; behind a part's keys are its values.
    const std::vector<std::int32_t> first_row = {0, 1, 16, 17, 18, 19, 2, 3};
    for (std::int64_t i = 0; i < 16; ++i) {
      CHECK(keys.index.data<std::int32_t>()[i] == i % 8);
      const std::int32_t row = keys.to_sorted.data<std::int32_t>()[i];
      CHECK(row == first_row[static_cast<std::size_t>(i % 8)] + (i < 8 ? 0 : 4));
      CHECK(keys.from_sorted.data<std::int32_t>()[row] == i);
      CHECK(keys.to_sorted.data<std::int32_t>()[16 + i] == row + 8);
    }
  }
  CHECK(keys_of(memory.shape(2, 4), split).index.numel() == 16);
  DeviceBatch whole(*backend, {.tokens = 16});
  CHECK(whole.upload(batch_of({{8}}), stream).context == nullptr);
  CHECK_THROWS_AS(whole.upload(take_tokens(batch_of({{8}}), 0, 2), stream), InternalError);
}

TEST_CASE("parts in a ring know whose keys their documents see", "[train]") {
  const auto backend = make_cpu_backend();
  const ContextSplit split = {.ranks = 2, .exchange = ContextExchange::kRing};
  DeviceBatch memory(*backend, {.tokens = 16, .context = split});
  Stream stream;
  const auto seen = [&](const Batch& whole, std::int64_t part) {
    return keys_of(memory.upload(take_tokens(whole, part, 2), stream), split).seen;
  };
  using Seen = std::vector<bool>;
  const Batch one = batch_of({{8}});
  CHECK(seen(one, 0) == Seen{true, true});
  CHECK(seen(one, 1) == Seen{true, true});
  const Batch several = batch_of({{2, 4, 2}});  // the middle one is the second part's
  CHECK(seen(several, 0) == Seen{true, false});
  CHECK(seen(several, 1) == Seen{false, true});
  CHECK(keys_of(memory.shape(1, 4), split).is_seen(1));
}

TEST_CASE("a step has one kind of mask, on every rank and in every micro-batch", "[train]") {
  const auto backend = make_cpu_backend();
  DeviceBatch memory(*backend, {.tokens = 16});
  Stream stream;
  const auto kinds = [&](const Batch& batch, const BatchGeometry& geometry) {
    std::vector<MaskKind> found;
    for (std::int64_t rank = 0; rank < geometry.data_ranks * geometry.context_ranks; ++rank) {
      const BatchPlace place = {rank / geometry.context_ranks, rank % geometry.context_ranks};
      for (Batch& part : micro_batches(batch, geometry, place, 0)) {
        part.index_of_parts.clear();  // of a memory for divided rows
        found.push_back(memory.upload(part, stream).mask);
      }
    }
    return found;
  };
  const BatchGeometry two_ranks = {.batch_size = 4, .data_ranks = 2, .rows_per_rank = 2, .micro_batch = 1};
  CHECK(kinds(batch_of({{6}, {6}, {6}, {4}}), two_ranks) == std::vector(4, MaskKind::kCausal));
  CHECK(kinds(batch_of({{6}, {6}, {6}, {3, 3}}), two_ranks) == std::vector(4, MaskKind::kGeneral));
  CHECK(kinds(batch_of({{3, 3}}), two_ranks) == std::vector(2, MaskKind::kGeneral));  // one rank has padding
  // The first half of a short row is whole, and its other half padding.
  BatchGeometry divided = {.batch_size = 1, .rows_per_rank = 1, .micro_batch = 1, .context_ranks = 2};
  divided.token_multiple = 8;
  CHECK(kinds(batch_of({{2}}), divided) == std::vector(2, MaskKind::kGeneral));
}
