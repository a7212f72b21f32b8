// What attention may take for granted of a batch.
#include "caravan/train/device_batch.h"

#include <catch2/catch.hpp>

#include "caravan/data/batch_slice.h"
#include "caravan/data/packing.h"
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
  DeviceBatch memory(*backend, 16);
  Stream stream;
  CHECK(memory.upload(batch_of({{6}, {3, 3}}), stream).mask == MaskKind::kGeneral);
  CHECK(memory.upload(batch_of({{6}}), stream).mask == MaskKind::kCausal);
  CHECK(memory.shape(2, 6).mask == MaskKind::kGeneral);
}
