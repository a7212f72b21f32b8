#include "caravan/train/step_batches.h"

#include <algorithm>

#include "caravan/train/device_batch.h"

namespace caravan {

BatchPlace batch_place(const Coordinates& at) {
  return {at.index("dp_replicate") * at.count("dp_shard") + at.index("dp_shard"), at.index("cp")};
}

std::vector<Batch> micro_batches(const Batch& batch, const BatchGeometry& geometry, const BatchPlace& place,
                                 std::int32_t pad_id) {
  const std::int64_t rows = (batch.batch + geometry.data_ranks - 1) / geometry.data_ranks;
  const std::int64_t end = std::min(batch.batch, (place.data_rank + 1) * rows);
  // Divided rows are no whole ones anywhere, though a rank's own tokens may look so.
  const bool is_general = geometry.context_ranks > 1 || mask_of(batch) == MaskKind::kGeneral;
  std::vector<Batch> parts;
  for (std::int64_t done = 0; done < rows; done += geometry.micro_batch) {
    const std::int64_t begin = place.data_rank * rows + done;
    const std::int64_t count = std::min(geometry.micro_batch, rows - done);
    // Rows of the next rank must not slip into this one's last micro-batch.
    Batch mine = take_rows(batch, std::min(begin, end), std::clamp<std::int64_t>(end - begin, 0, count),
                           geometry.padded(batch.seq_len), pad_id);
    parts.push_back(take_tokens(take_rows(mine, 0, count, mine.seq_len, pad_id), place.context_rank,
                                geometry.context_ranks));
    parts.back().is_in_general_step = is_general;
  }
  return parts;
}

}  // namespace caravan
