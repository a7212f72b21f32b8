// Parts of a matrix that the ranks of a mesh hold, brought to one rank and compared with the whole there, one
// part at a time: nothing is added up or overwritten on the way, so that every rank's own numbers are looked
// at.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "caravan/comm/communicator.h"
#include "caravan/core/shard_spec.h"

namespace caravan {

/// Rows of a matrix that one rank holds; of a vector every element is a row of one column. The memory is the
/// caller's.
struct MatrixPart {
  /// The part's row i is row rows[i] of the whole; this number: of none, it is not compared.
  static constexpr std::int64_t kNoRow = -1;
  std::vector<std::int64_t> rows;
  std::int64_t first_column = 0;
  TensorView values;  // [rows.size(), C], contiguous
};

/// The part of a tensor of one or two dims that `values` holds.
MatrixPart part_of_tensor(const Region& region, const TensorView& values);

/// Shows every rank's part to `visit` on `root`, in rank order; a part is valid during the call only. All
/// parts are in host memory and have the same dtype; a rank may have no rows. Collective.
void visit_parts(Communicator& world, int root, const MatrixPart& mine,
                 const std::function<void(int rank, const MatrixPart& part)>& visit);

/// One part against the whole.
struct PartDifference {
  std::int64_t compared = 0;  // elements
  std::int64_t unequal = 0;   // elements whose bits differ
  double sum_absolute = 0.0;  // Σ |part − whole|
  double relative =
      0.0;  // root mean square of part − whole in units of the whole's, or of the part's if larger
  // Of the first element whose bits differ:
  std::int64_t row = 0, column = 0;  // in the whole
  double value = 0.0, expected = 0.0;
};

/// Elementwise, in double; float64, float32 or bfloat16. `whole` [R, C] (or [R]) is contiguous and of the
/// part's dtype; `whole_rms` its root mean square.
PartDifference compare_part(const MatrixPart& part, const TensorView& whole, double whole_rms);

double root_mean_square(const TensorView& values);

}  // namespace caravan
