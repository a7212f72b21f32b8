// Attention forward with wgmma and bulk tensor copies, as FlashAttention-3 (Shah et al. 2024): bfloat16,
// heads of 64 or 128. attention.h has the roles, docs/notes/hopper-kernels.md the protocol.
#include "kernels/cuda/hopper/key_ring.h"
#include "kernels/cuda/online_softmax.h"

namespace caravan::cuda::hopper {
namespace {

template <int kHeadDim>
struct ForwardTiles {
  using Ring = KeyRing<kHeadDim, kHeadDim == 64 ? 4 : 2>;
  static constexpr int kQueryBytes = tile_bytes(kWarpgroupRows, kHeadDim);  // of one consumer
  static constexpr int kTileBytes = kConsumers * kQueryBytes + Ring::kTileBytes;
  static constexpr int kSharedBytes =
      kTileAlignment + kTileBytes + (1 + Ring::kBarriers) * static_cast<int>(sizeof(Barrier));
};

#if defined(CARAVAN_HOPPER_CODE)

/// A consumer's 64 queries. kOverlap: the scores of the next step are computed and weighed while the values
/// of this one are added up.
template <int kHeadDim, bool kOverlap>
struct Consumer {
  using Ring = typename ForwardTiles<kHeadDim>::Ring;
  using Place = typename Ring::Place;
  using Scores = float[1][Ring::kKeys / 8][4];

  const AttentionProblem& p;
  const Ring& ring;
  const QueryBlock& block;
  const KeySteps& steps;
  const int begin;  // of its queries
  const float scale_log2;
  const unsigned queries;  // addresses of shared memory
  const unsigned keys;
  const unsigned values;

  OnlineSoftmax<1> softmax{};
  float result[1][kHeadDim / 8][4] = {};
  std::uint32_t weights[Ring::kKeys / 16][4];

  __device__ Consumer(const AttentionProblem& problem, const Ring& keys_and_values, const QueryBlock& at,
                      const KeySteps& all, const unsigned char* query_tile, int first_query)
      : p(problem),
        ring(keys_and_values),
        block(at),
        steps(all),
        begin(first_query),
        scale_log2(problem.scale * kLog2E),
        queries(shared_address(query_tile)),
        keys(shared_address(keys_and_values.keys)),
        values(shared_address(keys_and_values.values)) {}

  /// Starts scores = q · kᵀ.
  __device__ void start_scores(Scores& scores, const Place& place) {
    barrier_wait(ring.full_keys + place.stage, place.phase);
    const std::uint64_t q = along_columns(queries);
    const std::uint64_t k = along_columns(keys + static_cast<unsigned>(place.stage * Ring::kStageBytes));
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / kContraction; ++step) {
      wgmma(scores[0], q + columns_step(step, kWarpgroupRows), k + columns_step(step, Ring::kKeys), step > 0);
    }
    wgmma_commit();
  }
  /// Starts result += weights · v.
  __device__ void start_values(const Place& place) {
    barrier_wait(ring.full_values + place.stage, place.phase);
    const std::uint64_t v =
        along_rows(values + static_cast<unsigned>(place.stage * Ring::kStageBytes), Ring::kKeys);
    pin(weights);
    pin(result[0]);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < Ring::kKeys / kContraction; ++step) {
      wgmma(result[0], weights[step], v + rows_step(step));
    }
    wgmma_commit();
  }

  template <bool kMasked>
  __device__ void weigh(Scores& scores, float (&correction)[1][2], int step) {
    if constexpr (kMasked) {
      const int warp = static_cast<int>(threadIdx.x) % kWarpgroup / kWarpSize;
      hide_unseen(scores, p, block.row, begin + 16 * warp, steps.tile(step) * Ring::kKeys);
    }
    softmax.weigh(scores, correction, scale_log2);
  }
  __device__ void pack(const Scores& scores) {
#pragma unroll
    for (int j = 0; j < Ring::kKeys / 16; ++j) {
      pack_fragment(weights[j], scores[0], j);
    }
  }

  /// Scores and weights of the first step; with kOverlap its values are added by the next.
  template <bool kMasked>
  __device__ void step_alone(int step, Place& place) {
    Scores scores;
    float correction[1][2];
    start_scores(scores, place);
    wgmma_wait<0>();
    pin(scores[0]);
    release(ring.empty_keys + place.stage);
    weigh<kMasked>(scores, correction, step);
    pack(scores);
    if constexpr (!kOverlap) {
      rescale(result, correction);
      start_values(place);
      finish_values(place);
      place.advance();
    }
  }
  /// `place` is that of the step before, whose values are still to be added.
  template <bool kMasked>
  __device__ void step_overlapped(int step, Place& place) {
    Scores scores;
    float correction[1][2];
    Place next = place;
    next.advance();
    start_scores(scores, next);
    start_values(place);
    wgmma_wait<1>();
    pin(scores[0]);
    release(ring.empty_keys + next.stage);
    weigh<kMasked>(scores, correction, step);
    finish_values(place);
    rescale(result, correction);
    pack(scores);
    place = next;
  }
  __device__ void finish_values(const Place& place) {
    wgmma_wait<0>();
    pin(result[0]);
    release(ring.empty_values + place.stage);
  }

  /// Masked steps first, so that the loop over the others compares nothing.
  __device__ void run() {
    if (steps.count() == 0) {
      return;
    }
    Place place;
    int step = 0;
    if constexpr (kOverlap) {
      step_alone<true>(step++, place);
      for (; step < steps.masked(); ++step) {
        step_overlapped<true>(step, place);
      }
      for (; step < steps.count(); ++step) {
        step_overlapped<false>(step, place);
      }
      start_values(place);
      finish_values(place);
    } else {
      for (; step < steps.masked(); ++step) {
        step_alone<true>(step, place);
      }
      for (; step < steps.count(); ++step) {
        step_alone<false>(step, place);
      }
    }
  }

  /// Writes lse; returns what the rows of `result` are to be multiplied by.
  __device__ void finish(float* lse, float (&factor)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = softmax.whole_sum(0, half);
      factor[half] = sum > 0.0F ? 1.0F / sum : 0.0F;
      const int query = begin + accumulator_row(static_cast<int>(threadIdx.x), 2 * half);
      if (LaneOf().member == 0 && query < p.query_len) {  // −inf where nothing is seen
        lse[p.statistic_at(block.row, query, block.head)] = softmax.maximum[0][half] * p.scale + logf(sum);
      }
    }
  }
};

#endif  // CARAVAN_HOPPER_CODE

template <int kHeadDim, bool kOverlap>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(AttentionProblem p, const CARAVAN_GRID_CONSTANT TensorMap q,
                   const CARAVAN_GRID_CONSTANT TensorMap k, const CARAVAN_GRID_CONSTANT TensorMap v,
                   const CARAVAN_GRID_CONSTANT TensorMap o, float* lse) {
#if defined(CARAVAN_HOPPER_CODE)
  using Tiles = ForwardTiles<kHeadDim>;
  SharedMemory smem;
  unsigned char* queries = aligned_tiles(smem.take<unsigned char>(Tiles::kSharedBytes));
  auto* full_queries = reinterpret_cast<Barrier*>(queries + Tiles::kTileBytes);
  const typename Tiles::Ring ring(queries + kConsumers * Tiles::kQueryBytes, full_queries + 1);
  const QueryBlock block(p);
  if (threadIdx.x == 0) {
    barrier_init(full_queries, 1);
    ring.init();
    fence_barrier_init();
  }
  const KeySteps steps = steps_of_tile<Tiles::Ring::kKeys>(p, block.row, block.begin);
  __syncthreads();  // the last one: from here on the roles meet at barriers of their own
  const int warpgroup = warpgroup_of_block();
  if (warpgroup == 0) {
    registers_decrease<kProducerRegisters>();
    if (threadIdx.x == 0) {
      barrier_expect(full_queries, kConsumers * Tiles::kQueryBytes);
      for (int consumer = 0; consumer < kConsumers; ++consumer) {
        load_tile<kHeadDim>(queries + consumer * Tiles::kQueryBytes, q, kWarpgroupRows, full_queries,
                            {0, block.begin + consumer * kWarpgroupRows, block.head, block.row});
      }
      barrier_arrive(full_queries);
      ring.produce(k, v, steps, block.kv_head, block.row);
    }
  } else {
    registers_increase<kConsumerRegisters>();
    const int number = warpgroup - 1;
    const int begin = block.begin + number * kWarpgroupRows;
    unsigned char* tile = queries + number * Tiles::kQueryBytes;
    Consumer<kHeadDim, kOverlap> consumer(p, ring, block, steps, tile, begin);
    barrier_wait(full_queries, 0);  // also without a step: the results go through their memory
    consumer.run();
    float factor[2];
    consumer.finish(lse, factor);
    store_tile<kHeadDim>(tile, consumer.result[0], factor, o, number, {0, begin, block.head, block.row});
  }
#endif
}

template <int kHeadDim, bool kOverlap>
void launch_forward(const AttentionForwardArgs& args, StreamHandle stream) {
  const AttentionShape& s = args.shape;
  const auto tokens = [&](const TensorView& x, std::int64_t length, std::int64_t heads, int rows) {
    return tensor_map({x.data<BFloat16>(), s.batch, length, heads, s.head_dim}, rows);
  };
  constexpr int kKeys = ForwardTiles<kHeadDim>::Ring::kKeys;
  launch("hopper_attention_forward", forward_kernel<kHeadDim, kOverlap>,
         {.grid = query_blocks(s),
          .block = kThreads,
          .shared_bytes = ForwardTiles<kHeadDim>::kSharedBytes,
          .stream = stream},
         attention_problem(s, args.mask, args.lse), tokens(args.q, s.query_len, s.n_heads, kWarpgroupRows),
         tokens(args.k, s.key_len, s.n_kv_heads, kKeys), tokens(args.v, s.key_len, s.n_kv_heads, kKeys),
         tokens(args.o, s.query_len, s.n_heads, kWarpgroupRows), args.lse.data<float>());
}

template <bool kOverlap>
void launch_any(const AttentionForwardArgs& args, StreamHandle stream) {
  for_each_part(args, [&](const AttentionForwardArgs& part, std::int64_t /*first*/) {
    if (args.shape.head_dim == 64) {
      launch_forward<64, kOverlap>(part, stream);
    } else {
      launch_forward<128, kOverlap>(part, stream);
    }
  });
}

}  // namespace

void attention_forward(const AttentionForwardArgs& args, StreamHandle stream) {
  launch_any<true>(args, stream);
}

void attention_forward_plain(const AttentionForwardArgs& args, StreamHandle stream) {
  launch_any<false>(args, stream);
}

}  // namespace caravan::cuda::hopper
