// dq of attention with wgmma and bulk tensor copies: a block owns 128 queries of a head, as in the forward
// pass, and keys come past. With p = exp(s − lse) and ds = p · (do vᵀ − delta):  dq = scale · ds k. The two
// products before and the one after it are accumulated in float; ds goes from registers into the last as
// bfloat16, and no block adds to another's memory.
#include "kernels/cuda/hopper/key_ring.h"

namespace caravan::cuda::hopper {
namespace {

template <int kHeadDim>
struct DqTiles {
  using Ring = KeyRing<kHeadDim, 2>;
  static constexpr int kQueryBytes = tile_bytes(kWarpgroupRows, kHeadDim);  // of one consumer; as many of do
  static constexpr int kTileBytes = 2 * kConsumers * kQueryBytes + Ring::kTileBytes;
  static constexpr int kSharedBytes =
      kTileAlignment + kTileBytes + (1 + Ring::kBarriers) * static_cast<int>(sizeof(Barrier));
};

#if defined(CARAVAN_HOPPER_CODE)

/// A consumer's 64 queries.
template <int kHeadDim>
struct Consumer {
  using Ring = typename DqTiles<kHeadDim>::Ring;
  using Place = typename Ring::Place;
  using Scores = float[1][Ring::kKeys / 8][4];

  const AttentionProblem& p;
  const Ring& ring;
  const QueryBlock& block;
  const KeySteps& steps;
  const int begin;  // of its queries
  const float scale_log2;
  const unsigned queries;  // addresses of shared memory
  const unsigned gradients;
  const unsigned keys;
  const unsigned values;
  float lse_log2[2];
  float row_delta[2];

  float result[1][kHeadDim / 8][4] = {};

  __device__ Consumer(const AttentionProblem& problem, const Ring& keys_and_values, const QueryBlock& at,
                      const KeySteps& all, const unsigned char* query_tile,
                      const unsigned char* gradient_tile, int first_query, const float* lse,
                      const float* delta)
      : p(problem),
        ring(keys_and_values),
        block(at),
        steps(all),
        begin(first_query),
        scale_log2(problem.scale * kLog2E),
        queries(shared_address(query_tile)),
        gradients(shared_address(gradient_tile)),
        keys(shared_address(keys_and_values.keys)),
        values(shared_address(keys_and_values.values)) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const RowStatistics of_row =
          row_statistics(p, lse, delta, block.row,
                         begin + accumulator_row(static_cast<int>(threadIdx.x), 2 * half), block.head);
      lse_log2[half] = of_row.lse_log2;
      row_delta[half] = of_row.delta;
    }
  }

  /// Starts product [64, kKeys] = rows · tileᵀ.
  __device__ void start_product(Scores& product, unsigned rows, unsigned tile) {
    const std::uint64_t a = along_columns(rows);
    const std::uint64_t b = along_columns(tile);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / kContraction; ++step) {
      wgmma(product[0], a + columns_step(step, kWarpgroupRows), b + columns_step(step, Ring::kKeys),
            step > 0);
    }
    wgmma_commit();
  }

  __device__ void start_values(Scores& products, const Place& place, unsigned offset) {
    barrier_wait(ring.full_values + place.stage, place.phase);
    start_product(products, gradients, values + offset);
  }

  template <bool kMasked>
  __device__ void step(int number, Place& place) {
    Scores scores;
    Scores products;  // do vᵀ
    std::uint32_t ds[Ring::kKeys / 16][4];
    const auto offset = static_cast<unsigned>(place.stage * Ring::kStageBytes);
    barrier_wait(ring.full_keys + place.stage, place.phase);
    start_product(scores, queries, keys + offset);
    if constexpr (kMasked) {  // one product after the other: the mask needs the registers
      wgmma_wait<0>();
    } else {
      start_values(products, place, offset);
      wgmma_wait<1>();
    }
    pin(scores[0]);
    if constexpr (kMasked) {
      const int warp = static_cast<int>(threadIdx.x) % kWarpgroup / kWarpSize;
      hide_unseen(scores, p, block.row, begin + 16 * warp, steps.tile(number) * Ring::kKeys);
    }
#pragma unroll
    for (int i = 0; i < Ring::kKeys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        scores[0][i][j] = exp2_approx(scores[0][i][j] * scale_log2 - lse_log2[j / 2]);
      }
    }
    if constexpr (kMasked) {
      start_values(products, place, offset);
    }
    wgmma_wait<0>();
    pin(products[0]);
    release(ring.empty_values + place.stage);
#pragma unroll
    for (int i = 0; i < Ring::kKeys / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        scores[0][i][j] *= products[0][i][j] - row_delta[j / 2];
      }
    }
#pragma unroll
    for (int j = 0; j < Ring::kKeys / 16; ++j) {
      pack_fragment(ds[j], scores[0], j);
    }
    pin(ds);
    const std::uint64_t k = along_rows(keys + offset, Ring::kKeys);
    wgmma_fence();
#pragma unroll
    for (int j = 0; j < Ring::kKeys / kContraction; ++j) {
      wgmma(result[0], ds[j], k + rows_step(j));
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(result[0]);
    release(ring.empty_keys + place.stage);
    place.advance();
  }

  __device__ void run() {
    Place place;
    int number = 0;
    for (; number < steps.masked(); ++number) {
      step<true>(number, place);
    }
    for (; number < steps.count(); ++number) {
      step<false>(number, place);
    }
  }
};

#endif  // CARAVAN_HOPPER_CODE

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    dq_kernel(AttentionProblem p, const CARAVAN_GRID_CONSTANT TensorMap q,
              const CARAVAN_GRID_CONSTANT TensorMap d_o, const CARAVAN_GRID_CONSTANT TensorMap k,
              const CARAVAN_GRID_CONSTANT TensorMap v, const CARAVAN_GRID_CONSTANT TensorMap dq,
              const float* lse, const float* delta) {
#if defined(CARAVAN_HOPPER_CODE)
  using Tiles = DqTiles<kHeadDim>;
  SharedMemory smem;
  unsigned char* queries = aligned_tiles(smem.take<unsigned char>(Tiles::kSharedBytes));
  unsigned char* gradients = queries + kConsumers * Tiles::kQueryBytes;
  auto* full_queries = reinterpret_cast<Barrier*>(queries + Tiles::kTileBytes);  // gradients too
  const typename Tiles::Ring ring(gradients + kConsumers * Tiles::kQueryBytes, full_queries + 1);
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
      barrier_expect(full_queries, 2 * kConsumers * Tiles::kQueryBytes);
      for (int consumer = 0; consumer < kConsumers; ++consumer) {
        const int offset = consumer * Tiles::kQueryBytes;
        const int begin = block.begin + consumer * kWarpgroupRows;
        load_tile<kHeadDim>(queries + offset, q, kWarpgroupRows, full_queries,
                            {0, begin, block.head, block.row});
        load_tile<kHeadDim>(gradients + offset, d_o, kWarpgroupRows, full_queries,
                            {0, begin, block.head, block.row});
      }
      barrier_arrive(full_queries);
      ring.produce(k, v, steps, block.kv_head, block.row);
    }
  } else {
    registers_increase<kConsumerRegisters>();
    const int number = warpgroup - 1;
    const int begin = block.begin + number * kWarpgroupRows;
    const int offset = number * Tiles::kQueryBytes;
    Consumer<kHeadDim> consumer(p, ring, block, steps, queries + offset, gradients + offset, begin, lse,
                                delta);
    barrier_wait(full_queries, 0);  // also without a step: the results go through their memory
    consumer.run();
    const float factor[2] = {p.scale, p.scale};
    store_tile<kHeadDim>(queries + offset, consumer.result[0], factor, dq, number,
                         {0, begin, block.head, block.row});
  }
#endif
}

template <int kHeadDim>
void launch_dq(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream) {
  const AttentionShape& s = args.shape;
  const auto queries = [&](const TensorView& x) {
    return tensor_map({x.data<BFloat16>(), s.batch, s.query_len, s.n_heads, s.head_dim}, kWarpgroupRows);
  };
  const auto keys = [&](const TensorView& x) {
    return tensor_map({x.data<BFloat16>(), s.batch, s.key_len, s.n_kv_heads, s.head_dim},
                      DqTiles<kHeadDim>::Ring::kKeys);
  };
  launch("hopper_attention_dq", dq_kernel<kHeadDim>,
         {.grid = query_blocks(s),
          .block = kThreads,
          .shared_bytes = DqTiles<kHeadDim>::kSharedBytes,
          .stream = stream},
         attention_problem(s, args.mask, args.lse), queries(args.q), queries(args.d_o), keys(args.k),
         keys(args.v), queries(args.dq), args.lse.data<float>(), delta);
}

}  // namespace

void attention_dq(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream) {
  for_each_part(args, [&](const AttentionBackwardArgs& part, std::int64_t first) {
    if (args.shape.head_dim == 64) {
      launch_dq<64>(part, delta + first, stream);
    } else {
      launch_dq<128>(part, delta + first, stream);
    }
  });
}

}  // namespace caravan::cuda::hopper
