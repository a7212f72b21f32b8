// Argument structs of the backend's ops. Letters are those of core/shape.h.
//
// Common rules, unless a field says otherwise:
//  - views are contiguous, on the backend's device, of the backend's compute dtype ("real" below: float32,
//  float64,
//    or complex128 in tests); integer views are int32;
//  - activations' gradients are written, weights' gradients are accumulated (+=);
//  - outputs do not overlap inputs;
//  - rows of zero length and T = 0 are legal and do nothing.
#pragma once

#include <cstdint>
#include <limits>

#include "caravan/backend/step_scalars.h"
#include "caravan/backend/update_state.h"
#include "caravan/backend/weight_view.h"
#include "caravan/core/tensor_view.h"

namespace caravan {

enum class Accumulate : std::uint8_t { kOverwrite, kAdd };

/// c = a · bᵀ: the forward of a linear layer.   a [M, K], b [N, K], c [M, N]
struct MatmulNtArgs {
  TensorView a;
  WeightView b;
  TensorView c;
  Accumulate accumulate = Accumulate::kOverwrite;
};
/// c = a · b: the input gradient.               a [M, K], b [K, N], c [M, N]
struct MatmulNnArgs {
  TensorView a;
  WeightView b;
  TensorView c;
  Accumulate accumulate = Accumulate::kOverwrite;
};
/// c += aᵀ · b: the weight gradient.            a [K, M], b [K, N], c [M, N]
struct MatmulTnArgs {
  TensorView a;
  TensorView b;
  TensorView c;
  Accumulate accumulate = Accumulate::kAdd;
};

/// y[t] = weight[ids[t] − vocab_begin], zeros where this is not a row of weight; ids in [0, vocab_size)
/// (checked).
struct EmbeddingForwardArgs {
  TensorView weight;  // [V_local, D]: rows [vocab_begin, vocab_begin + V_local) of the whole table
  TensorView ids;     // [T] int32, rows of the whole table
  TensorView y;       // [T, D]
  std::int64_t vocab_begin = 0;
  std::int64_t vocab_size = 0;  // rows of the whole table; 0: weight is the whole
};
/// dweight[ids[t] − vocab_begin] += dy[t] where this is a row of it, in the order of t for each row whatever
/// the threads.
struct EmbeddingBackwardArgs {
  TensorView dy;       // [T, D]
  TensorView ids;      // [T] int32
  TensorView dweight;  // [V_local, D] accumulated
  std::int64_t vocab_begin = 0;
  std::int64_t vocab_size = 0;
};

/// sum = x + delta (when delta is defined; else x is read as the sum and `sum` is not written);
/// rstd = 1 / sqrt(mean(sum²) + eps);  y = sum · rstd · weight   (Zhang and Sennrich 2019, eq. 4)
struct RmsNormForwardArgs {
  TensorView x;       // [T, D]
  TensorView delta;   // [T, D] or undefined
  TensorView sum;     // [T, D] undefined exactly when delta is; may be the same memory as x
  TensorView weight;  // [D]
  double eps = 0.0;
  TensorView y;     // [T, D]
  TensorView rstd;  // [T]
};
/// With n = x · rstd and s = Σ_d dy·weight·n / D:  dx += (dy · weight − n · s) · rstd;  dweight += Σ_t dy · n
struct RmsNormBackwardArgs {
  TensorView dy;       // [T, D]
  TensorView x;        // [T, D] the sum of the forward pass
  TensorView weight;   // [D]
  TensorView rstd;     // [T]
  TensorView dx;       // [T, D] accumulated: it is the residual stream's gradient
  TensorView dweight;  // [D] accumulated; undefined: not wanted
};

enum class RopeDirection : std::uint8_t { kForward, kBackward };
/// Rotates pairs (x[2j], x[2j+1]) of every head in place by the angle of row positions[t] of the tables;
/// backward rotates the other way (the rotation is orthogonal). Su et al. 2021, eq. 34, interleaved pairs.
struct RopeArgs {
  TensorView x;          // [T, heads · E] in place
  TensorView positions;  // [T] int32, rows of the tables (checked)
  TensorView cos;        // [P, E/2]
  TensorView sin;        // [P, E/2]
  std::int64_t head_dim = 0;
  RopeDirection direction = RopeDirection::kForward;
};

/// Grouped-query attention over `batch` independent rows. Query i of a row sees key j of the same row exactly
/// when document_start[i] ≤ key_index[j] ≤ query_index[i]. Head h reads kv head h / (H / G). s = scale · q kᵀ
/// over visible keys;  lse = log Σ exp(s);  o = Σ exp(s − lse) v. A query that sees nothing: o = 0, lse =
/// −inf. No matrix of query_len × key_len is ever stored whole (Dao et al. 2022).
struct AttentionShape {
  std::int64_t batch = 0;       // B
  std::int64_t query_len = 0;   // Sq
  std::int64_t key_len = 0;     // Sk
  std::int64_t n_heads = 0;     // H, local
  std::int64_t n_kv_heads = 0;  // G, local
  std::int64_t head_dim = 0;    // E
  double scale = 0.0;
};
/// What the host knows of a mask without reading it.
enum class MaskKind : std::uint8_t {
  kGeneral,
  // Query i of a row sees its keys 0 .. i: one document, in order. It may be otherwise behind a row's last
  // target, where nobody uses o and d_o is 0: a backend may compute those places as causal ones.
  kCausal,
};
struct AttentionMask {
  TensorView query_index;     // [B·Sq] int32, in any order
  TensorView key_index;       // [B·Sk] int32, non-decreasing in a row (checked)
  TensorView document_start;  // [B·Sq] int32
  MaskKind kind = MaskKind::kGeneral;
};
struct AttentionForwardArgs {
  AttentionShape shape;
  AttentionMask mask;
  TensorView q;    // [B·Sq, H·E]
  TensorView k;    // [B·Sk, G·E]
  TensorView v;    // [B·Sk, G·E]
  TensorView o;    // [B·Sq, H·E]
  TensorView lse;  // [H, B·Sq]
};
/// With p = exp(s − lse) and delta = Σ_e do · o:  dv = pᵀ do,  ds = p · (do vᵀ − delta),  dq = scale · ds k,
/// dk = scale · dsᵀ q; heads that share a kv head add up, in head order.
struct AttentionBackwardArgs {
  AttentionShape shape;
  AttentionMask mask;
  TensorView q, k, v, o, lse;  // as in the forward pass
  TensorView d_o;              // [B·Sq, H·E]
  TensorView dq, dk, dv;       // shapes of q, k, v; written
};

/// Joins attention over some keys with that over others, in place:
///   lse' = log(exp(lse) + exp(lse_part));  o' = exp(lse − lse') · o + exp(lse_part − lse') · o_part
/// A query that saw nothing in the part (lse_part = −inf) keeps its bits, one that had seen nothing takes the
/// part's.
struct AttentionMergeArgs {
  TensorView o;         // [T, H·E] in place
  TensorView lse;       // [H, T] in place
  TensorView o_part;    // [T, H·E]
  TensorView lse_part;  // [H, T]
};

/// h = silu(gate) · up, silu(z) = z / (1 + exp(−z))   (Shazeer 2020, eq. 6)
struct SwigluForwardArgs {
  TensorView gate;  // [T, F]
  TensorView up;    // [T, F]
  TensorView h;     // [T, F]
};
struct SwigluBackwardArgs {
  TensorView dh;     // [T, F]
  TensorView gate;   // [T, F]
  TensorView up;     // [T, F]
  TensorView dgate;  // [T, F] may be the same memory as gate
  TensorView dup;    // [T, F] may be the same memory as up
};

/// Per row of a chunk of logits: the maximum (by real part), Σ exp(logit − maximum), and the target's logit
/// (0 where the target is not among this rank's columns [vocab_begin, vocab_begin + V_local)). A port then
/// combines ranks.
struct CrossEntropyStatsArgs {
  TensorView logits;   // [C, V_local]
  TensorView targets;  // [C] int32, global ids
  std::int64_t vocab_begin = 0;
  TensorView row_max;       // [C]
  TensorView row_sum;       // [C]
  TensorView target_logit;  // [C]
};
/// Before ranks add up their sums, in place: row_sum *= exp(row_max − common_max), then row_max = common_max.
/// A sum that is 0 stays 0 (a rank without columns).
struct CrossEntropyRescaleArgs {
  TensorView common_max;  // [C] the maximum over all ranks
  TensorView row_max;     // [C] in: this rank's
  TensorView row_sum;     // [C]
};
/// lse = row_max + log(row_sum);  losses = target_weights · (lse − target_logit), exactly 0 where the weight
/// is 0.
struct CrossEntropyLossArgs {
  TensorView row_max;         // [C]
  TensorView row_sum;         // [C]
  TensorView target_logit;    // [C]
  TensorView target_weights;  // [C] float32
  TensorView lse;             // [C]
  TensorView losses;          // [C]
};
/// In place: logits become dlogits = (exp(logit − lse) − [column is the target]) · target_weight ·
/// scalars.inv_valid_tokens · scalars.loss_scale; exactly 0 where the weight is 0.
struct CrossEntropyBackwardArgs {
  TensorView logits;          // [C, V_local] in: logits, out: dlogits
  TensorView targets;         // [C] int32
  TensorView target_weights;  // [C] float32
  TensorView lse;             // [C]
  std::int64_t vocab_begin = 0;
  const StepScalars* scalars = nullptr;
};

enum class LogitsAfter : std::uint8_t { kGradient, kKept };
/// The steps above for a vocabulary that is whole on this rank, row by row while a row is at hand: losses as
/// of cross_entropy_loss, and logits become the gradient of cross_entropy_backward, or stay where only losses
/// are wanted.
struct CrossEntropyArgs {
  TensorView logits;          // [C, V] in: logits, out: dlogits with kGradient
  TensorView targets;         // [C] int32
  TensorView target_weights;  // [C] float32
  TensorView losses;          // [C]
  LogitsAfter logits_after = LogitsAfter::kGradient;
  const StepScalars* scalars = nullptr;  // of the gradient
};

/// y = x + z, elementwise; y may be x or z.
struct AddArgs {
  TensorView x, z, y;
};
/// x *= factor, elementwise, in place.
struct ScaleArgs {
  TensorView x;
  double factor = 1.0;
};
/// x = 0
struct ZeroArgs {
  TensorView x;
};
/// y = x · m / (1 − rate): inverted dropout (Srivastava et al. 2014, section 10). m[t, d] is 0 where word d
/// mod 4 of philox4x32({d / 4, places[t], rows[t], site}, {low and high half of scalars.dropout_key}) is
/// below rate · 2³², else 1: it depends on what token this is in the step, not on where it is computed. A
/// dropped element is exactly 0 whatever x is. Linear in x with a symmetric matrix: the backward pass is the
/// same op on the gradient.
struct DropoutArgs {
  TensorView x;            // [T, D]
  TensorView y;            // [T, D] may be the same memory as x
  TensorView rows;         // [T] int32, the token's row in the batch of the whole step
  TensorView places;       // [T] int32, its place in that row
  std::uint32_t site = 0;  // which of the model's dropouts this is
  double rate = 0.0;       // in [0, 1)
  const StepScalars* scalars = nullptr;
};
/// Copies elements of equal shape, converting dtypes (float32, float64, bfloat16, float16); rows may be
/// strided in both.
struct CopyArgs {
  TensorView from, to;
};

/// Between the sums of a step and their use: decides from state.loss_sum and state.sum_squares whether the
/// update is skipped, prepares its factors with the scale that the gradients have, and then changes the scale
/// for the next step.
struct PrepareUpdateArgs {
  double max_norm = std::numeric_limits<double>::infinity();  // of the true gradients; infinity: no clipping
  double beta1 = 0.9;
  double beta2 = 0.999;
  LossScalePolicy policy = {};
  UpdateState* state = nullptr;  // memory of the backend's device
};
/// Rounding of bfloat16 values up or down by chance, so that updates too small for nearest rounding are right
/// on average (Gupta et al. 2015): 16 random bits are added below the mantissa and the sum is cut. Element
/// [i, j] of the view takes bits (e mod 8) of the eight 16-bit words of block e / 8, e its place in the whole
/// tensor, (row_begin + i) · global_cols + col_begin + j, of philox4x32 with key `seed` and stream `stream` +
/// state.updates: the same on any layout.
struct StochasticRounding {
  bool is_on = false;
  std::int64_t row_begin = 0;
  std::int64_t col_begin = 0;
  std::int64_t global_cols = 0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
};
/// AdamW (Loshchilov and Hutter 2019, algorithm 2) with PyTorch's order of operations, g = grad ·
/// state.gradient_factor, corrections those of the state:
///   param −= lr · weight_decay · param;  m += (1 − beta1)(g − m);  v = beta2 · v + (1 − beta2) g²;
///   param −= lr / bias_correction1 · m / (sqrt(v) / bias_correction2_sqrt + eps)
/// Nothing changes when state.is_skipped.
struct AdamwArgs {
  TensorView param, grad, m, v;  // same shape; param, m, v updated in place
  TensorView master = {};  // the value itself where param is its 16-bit rounding: float32; else undefined
  StochasticRounding rounding = {};  // of bfloat16 without a master
  double weight_decay = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  const StepScalars* scalars = nullptr;
  const UpdateState* state = nullptr;  // memory of the backend's device
};
/// result[0] += Σ x, summed in double in a fixed order whatever the threads.
struct SumArgs {
  TensorView x;
  TensorView result;  // [1] float64
};
/// result[0] += Σ x², likewise.
struct SumSquaresArgs {
  TensorView x;
  TensorView result;  // [1] float64
};
/// y[i, j] = std · normal(stream, (row_begin + i) · global_cols + col_begin + j): the same global values on
/// any layout.
struct RandomNormalArgs {
  TensorView y;  // [rows, cols] or [cols]
  std::int64_t row_begin = 0;
  std::int64_t col_begin = 0;
  std::int64_t global_cols = 0;
  double standard_deviation = 1.0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
};

}  // namespace caravan
