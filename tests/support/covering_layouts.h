// Layouts of which every pair of choices occurs together somewhere: what all claims about "any mesh" are
// tested on.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "caravan/config/run_config.h"

namespace caravan::test {

struct CoveringLayout {
  ParallelSection parallel;  // every axis given
  bool is_tied = false;
  bool is_packed = false;
  bool accumulates = false;  // micro-batches of one row; else all rows of a rank at once
  Recompute recompute = Recompute::kNone;
  std::int64_t n_kv_heads = 4;  // fewer than tp: ranks share a head, and its gradient has parts on each

  int ranks() const {
    return static_cast<int>(parallel.dp_replicate * parallel.dp_shard * parallel.cp * parallel.tp *
                            parallel.pp);
  }

  /// Stages need a layer each.
  int n_layers() const { return std::max(2, static_cast<int>(parallel.pp * parallel.stages_per_rank)); }

  /// The choices, each by number; kChoices says among how many. The last are the size of the pipeline and its
  /// schedule, 0 where there is none.
  static constexpr std::array<int, 11> kChoices = {2, 4, 2, 3, 3, 2, 2, 2, 3, 3, 5};
  std::array<int, 11> choices() const {
    const bool is_ring = parallel.context == ContextExchange::kRing;
    const int pipeline = parallel.pp == 1 ? 0 : (parallel.pp == 2 ? 1 : 2);
    return {parallel.dp_replicate > 1 ? 1 : 0,
            parallel.dp_shard > 1 ? static_cast<int>(parallel.zero_stage) : 0,
            parallel.reshard_after_forward ? 1 : 0,
            parallel.tp == 1 ? 0 : (parallel.sequence_parallel ? 2 : 1),
            parallel.cp == 1 ? 0 : (is_ring ? 2 : 1),
            is_tied ? 1 : 0,
            is_packed ? 1 : 0,
            accumulates ? 1 : 0,
            static_cast<int>(recompute),
            pipeline,
            pipeline == 0 ? 0 : 1 + static_cast<int>(parallel.pipeline_schedule)};
  }

  std::string name() const {
    std::string text;
    const auto add = [&](bool holds, const std::string& words) { text += holds ? words + ' ' : ""; };
    const auto size = [&](const char* axis, std::int64_t members) {
      add(members > 1, axis + std::to_string(members));
    };
    size("ddp", parallel.dp_replicate);
    size("shard", parallel.dp_shard);
    size("zero", parallel.dp_shard > 1 ? parallel.zero_stage : 0);
    add(!parallel.reshard_after_forward, "no-reshard");
    size("tp", parallel.tp);
    add(parallel.tp > 1 && parallel.sequence_parallel, "sp");
    size(parallel.context == ContextExchange::kRing ? "ring" : "gather", parallel.cp);
    size("pp", parallel.pp);
    add(parallel.pp > 1, std::string(enum_name(parallel.pipeline_schedule)));
    add(is_tied, "tied");
    add(is_packed, "packed");
    add(accumulates, "accumulated");
    add(n_kv_heads < parallel.tp, std::to_string(n_kv_heads) + "-kv-heads");
    add(recompute != Recompute::kNone, recompute == Recompute::kFull ? "full" : "selective");
    return text.empty() ? "one rank" : text;
  }
};

inline std::vector<CoveringLayout> layouts_without_pipeline() {
  constexpr auto kRing = ContextExchange::kRing;
  constexpr auto kSelective = Recompute::kSelective;
  constexpr auto kFull = Recompute::kFull;
  using P = ParallelSection;
  return {
      // One axis alone, up to its largest size.
      {.parallel = P{.dp_shard = 1}, .accumulates = true},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 1},
       .is_tied = true,
       .accumulates = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 2}, .is_tied = true, .is_packed = true},
      {.parallel = P{.dp_shard = 1, .tp = 2, .sequence_parallel = false}},
      {.parallel = P{.dp_shard = 1, .cp = 2, .context = kRing}, .is_packed = true},
      {.parallel = P{.dp_replicate = 4, .dp_shard = 1}, .is_packed = true},
      {.parallel = P{.dp_shard = 4, .zero_stage = 1}, .is_tied = true, .is_packed = true},
      {.parallel = P{.dp_shard = 4}, .recompute = kFull},
      {.parallel = P{.dp_shard = 1, .tp = 4}, .is_tied = true, .recompute = kFull},
      {.parallel = P{.dp_shard = 1, .cp = 4}, .is_tied = true, .is_packed = true},
      // 8 tensor ranks on 4 key/value heads: two share each.
      {.parallel = P{.dp_shard = 1, .tp = 8, .sequence_parallel = false}, .is_packed = true},
      {.parallel = P{.dp_shard = 1, .tp = 8}, .is_tied = true, .accumulates = true, .recompute = kSelective},
      // Two axes.
      {.parallel = P{.dp_shard = 2, .cp = 2, .context = kRing, .zero_stage = 1},
       .is_packed = true,
       .accumulates = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 2, .tp = 2, .reshard_after_forward = false},
       .is_tied = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 2, .cp = 2, .zero_stage = 2}, .is_packed = true, .recompute = kSelective},
      {.parallel = P{.dp_shard = 1, .cp = 2, .tp = 2, .context = kRing}, .recompute = kFull},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 1, .tp = 2},
       .is_tied = true,
       .is_packed = true,
       .accumulates = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 2, .cp = 4, .context = kRing, .zero_stage = 2}},
      {.parallel = P{.dp_shard = 1, .cp = 2, .tp = 4}, .is_tied = true},
      {.parallel = P{.dp_shard = 4, .tp = 2}, .accumulates = false, .recompute = kSelective},
      // Three.
      {.parallel = P{.dp_replicate = 2, .dp_shard = 1, .cp = 2, .tp = 2, .sequence_parallel = false},
       .is_tied = true,
       .is_packed = true},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 2, .tp = 2, .zero_stage = 2}, .accumulates = true},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 2, .cp = 2, .reshard_after_forward = false},
       .is_tied = true,
       .accumulates = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 2,
                     .cp = 2,
                     .tp = 2,
                     .sequence_parallel = false,
                     .context = kRing,
                     .reshard_after_forward = false},
       .is_packed = true,
       .accumulates = true,
       .recompute = kSelective},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 2, .tp = 2, .sequence_parallel = false, .zero_stage = 1},
       .is_tied = true,
       .recompute = kSelective},
      {.parallel =
           P{.dp_shard = 2, .cp = 2, .tp = 2, .sequence_parallel = false, .context = kRing, .zero_stage = 2},
       .is_tied = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 2, .cp = 2, .tp = 2, .zero_stage = 1}, .is_packed = true},
      {.parallel =
           P{.dp_replicate = 2, .dp_shard = 2, .cp = 2, .context = kRing, .reshard_after_forward = false}},
  };
}

/// With the next list, has every pair with the pipeline's size or schedule in it.
inline std::vector<CoveringLayout> layouts_with_pipeline() {
  constexpr auto kRing = ContextExchange::kRing;
  constexpr auto kGpipe = PipelineSchedule::kGpipe;
  constexpr auto kInterleaved = PipelineSchedule::kInterleaved;
  constexpr auto kZeroBubble = PipelineSchedule::kZeroBubble;
  constexpr auto kSelective = Recompute::kSelective;
  constexpr auto kFull = Recompute::kFull;
  using P = ParallelSection;
  return {
      // The pipeline alone.
      {.parallel = P{.dp_shard = 1, .pp = 2}, .is_tied = true, .accumulates = true},
      {.parallel = P{.dp_shard = 1, .pp = 2, .pipeline_schedule = kZeroBubble},
       .is_packed = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 1, .pp = 4, .pipeline_schedule = kZeroBubble},
       .is_tied = true,
       .accumulates = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 1, .pp = 4, .pipeline_schedule = kInterleaved, .stages_per_rank = 2},
       .is_packed = true},
      // With another axis or two.
      {.parallel = P{.dp_shard = 2,
                     .tp = 2,
                     .pp = 2,
                     .pipeline_schedule = kGpipe,
                     .sequence_parallel = false,
                     .reshard_after_forward = false}},
      {.parallel = P{.dp_shard = 2, .tp = 2, .pp = 2, .sequence_parallel = false, .zero_stage = 1},
       .is_tied = true,
       .is_packed = true,
       .accumulates = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 1,
                     .cp = 2,
                     .tp = 2,
                     .pp = 2,
                     .pipeline_schedule = kInterleaved,
                     .stages_per_rank = 2,
                     .context = kRing},
       .is_tied = true,
       .is_packed = true,
       .accumulates = true,
       .recompute = kFull},
      {.parallel = P{.dp_replicate = 2,
                     .dp_shard = 2,
                     .pp = 2,
                     .pipeline_schedule = kInterleaved,
                     .stages_per_rank = 2,
                     .zero_stage = 2}},
      {.parallel = P{.dp_shard = 1, .cp = 2, .tp = 2, .pp = 2, .pipeline_schedule = kGpipe},
       .is_packed = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 2, .cp = 2, .pp = 2, .pipeline_schedule = kZeroBubble, .zero_stage = 1},
       .accumulates = true},
      {.parallel =
           P{.dp_replicate = 2, .dp_shard = 2, .pp = 2, .pipeline_schedule = kZeroBubble, .zero_stage = 2},
       .is_tied = true,
       .is_packed = true,
       .recompute = kSelective},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 2, .pp = 2, .reshard_after_forward = false},
       .is_tied = true,
       .is_packed = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 1, .cp = 2, .tp = 2, .pp = 2, .context = kRing}},
      {.parallel =
           P{.dp_shard = 2, .cp = 2, .pp = 2, .pipeline_schedule = kGpipe, .context = kRing, .zero_stage = 2},
       .is_tied = true,
       .accumulates = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 2,
                     .cp = 2,
                     .pp = 2,
                     .pipeline_schedule = kInterleaved,
                     .stages_per_rank = 2,
                     .zero_stage = 1},
       .is_packed = true,
       .accumulates = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 2,
                     .tp = 2,
                     .pp = 2,
                     .pipeline_schedule = kZeroBubble,
                     .sequence_parallel = false,
                     .reshard_after_forward = false},
       .is_packed = true,
       .recompute = kFull},
  };
}

/// The rest of them: four stages beside another axis.
inline std::vector<CoveringLayout> layouts_with_four_stages() {
  constexpr auto kRing = ContextExchange::kRing;
  constexpr auto kGpipe = PipelineSchedule::kGpipe;
  constexpr auto kInterleaved = PipelineSchedule::kInterleaved;
  constexpr auto kZeroBubble = PipelineSchedule::kZeroBubble;
  constexpr auto kSelective = Recompute::kSelective;
  constexpr auto kFull = Recompute::kFull;
  using P = ParallelSection;
  return {
      {.parallel = P{.dp_shard = 1,
                     .tp = 2,
                     .pp = 4,
                     .pipeline_schedule = kInterleaved,
                     .stages_per_rank = 2,
                     .sequence_parallel = false},
       .is_tied = true,
       .is_packed = true,
       .accumulates = true},
      {.parallel = P{.dp_shard = 1, .cp = 2, .pp = 4, .pipeline_schedule = kZeroBubble, .context = kRing},
       .is_packed = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 2, .pp = 4, .zero_stage = 2}, .is_packed = true, .recompute = kSelective},
      {.parallel = P{.dp_shard = 2,
                     .pp = 4,
                     .pipeline_schedule = kInterleaved,
                     .stages_per_rank = 2,
                     .reshard_after_forward = false},
       .is_tied = true,
       .accumulates = true,
       .recompute = kSelective},
      {.parallel = P{.dp_shard = 2, .pp = 4, .pipeline_schedule = kGpipe, .zero_stage = 1},
       .is_tied = true,
       .recompute = kFull},
      {.parallel = P{.dp_shard = 1, .cp = 2, .pp = 4}, .recompute = kFull},
      {.parallel = P{.dp_shard = 1, .tp = 2, .pp = 4, .pipeline_schedule = kZeroBubble},
       .is_tied = true,
       .is_packed = true,
       .recompute = kFull},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 1, .pp = 4, .pipeline_schedule = kGpipe},
       .is_tied = true,
       .is_packed = true,
       .accumulates = true,
       .recompute = kSelective},
  };
}

/// Tensor ranks that share key/value heads, beside every other axis.
inline std::vector<CoveringLayout> layouts_with_shared_kv_heads() {
  constexpr auto kRing = ContextExchange::kRing;
  using P = ParallelSection;
  return {
      {.parallel = P{.dp_shard = 2, .tp = 4}, .is_tied = true, .accumulates = true, .n_kv_heads = 2},
      {.parallel = P{.dp_shard = 2, .tp = 4, .sequence_parallel = false, .zero_stage = 2},
       .is_packed = true,
       .accumulates = true,
       .n_kv_heads = 1},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 1, .tp = 4}, .is_packed = true, .n_kv_heads = 2},
      {.parallel = P{.dp_shard = 1, .cp = 2, .tp = 4, .context = kRing},
       .recompute = Recompute::kFull,
       .n_kv_heads = 2},
      {.parallel = P{.dp_shard = 1, .tp = 4, .pp = 2}, .is_tied = true, .accumulates = true, .n_kv_heads = 2},
      {.parallel = P{.dp_replicate = 2, .dp_shard = 2, .tp = 2}, .accumulates = true, .n_kv_heads = 1},
      {.parallel = P{.dp_shard = 2, .cp = 2, .tp = 2}, .recompute = Recompute::kSelective, .n_kv_heads = 1},
  };
}

/// dp_replicate · dp_shard is at most 4, so that steps of 4 rows can be divided.
inline std::vector<CoveringLayout> covering_layouts() {
  std::vector<CoveringLayout> all = layouts_without_pipeline();
  for (const auto& more :
       {layouts_with_pipeline(), layouts_with_four_stages(), layouts_with_shared_kv_heads()}) {
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

}  // namespace caravan::test
