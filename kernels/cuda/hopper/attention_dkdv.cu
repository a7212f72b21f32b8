// dk and dv of attention with wgmma and bulk tensor copies: a block owns 128 keys of a key-value head, and
// the queries of all heads of its group come past, in head order, so that no block adds to another's memory.
// The scores are computed transposed, sᵀ = k qᵀ: with p = exp(s − lse) and ds = p · (do vᵀ − delta), pᵀ and
// dsᵀ then stand in registers as operands of  dv = pᵀ do,  dk = scale · dsᵀ q.
#include "kernels/cuda/hopper/attention.h"

namespace caravan::cuda::hopper {
namespace {

/// How a tile of queries meets the block's keys.
enum class TileKind : unsigned char { kUnseen, kMasked, kFull };

template <int kHeadDim>
struct DkdvTiles {
  static constexpr int kQueries = 64;
  static constexpr int kStages = kHeadDim == 64 ? 4 : 2;
  static constexpr int kKeyBytes = tile_bytes(kWarpgroupRows, kHeadDim);  // of one consumer; as many of V
  static constexpr int kQueryBytes = tile_bytes(kQueries, kHeadDim);      // of one stage; as many of do
  static constexpr int kTileBytes = 2 * kConsumers * kKeyBytes + 2 * kStages * kQueryBytes;
  static constexpr int kBarriers = 1 + 3 * kStages;
  /// Without the kinds, one byte for each tile of queries.
  static constexpr int kSharedBytes =
      kTileAlignment + kTileBytes + kStages * kQueries * static_cast<int>(sizeof(RowStatistics)) +
      kStages * kQueries * static_cast<int>(sizeof(Visible)) + kBarriers * static_cast<int>(sizeof(Barrier));

  unsigned char* keys;
  unsigned char* values;
  unsigned char* queries;
  unsigned char* gradients;   // do
  RowStatistics* statistics;  // [kStages, kQueries]
  Visible* visible;           // [kStages, kQueries]
  Barrier* full_keys;         // keys and values
  Barrier* full_queries;      // [kStages], as are the following; statistics and visible too
  Barrier* full_gradients;
  Barrier* empty;
  TileKind* kinds;  // [tiles of queries]
};

#if defined(CARAVAN_HOPPER_CODE)

template <int kHeadDim>
__device__ DkdvTiles<kHeadDim> dkdv_tiles(unsigned char* shared) {
  using Tiles = DkdvTiles<kHeadDim>;
  unsigned char* tiles = aligned_tiles(shared);
  unsigned char* queries = tiles + 2 * kConsumers * Tiles::kKeyBytes;
  auto* statistics = reinterpret_cast<RowStatistics*>(tiles + Tiles::kTileBytes);
  auto* visible = reinterpret_cast<Visible*>(statistics + Tiles::kStages * Tiles::kQueries);
  auto* barriers = reinterpret_cast<Barrier*>(visible + Tiles::kStages * Tiles::kQueries);
  return {tiles,
          tiles + kConsumers * Tiles::kKeyBytes,
          queries,
          queries + Tiles::kStages * Tiles::kQueryBytes,
          statistics,
          visible,
          barriers,
          barriers + 1,
          barriers + 1 + Tiles::kStages,
          barriers + 1 + 2 * Tiles::kStages,
          reinterpret_cast<TileKind*>(barriers + Tiles::kBarriers)};
}

struct DkdvBlock {
  int begin;  // of its keys
  int kv_head;
  int row;
  int query_tiles;
};

/// By all warps of the block together: the kind of every tile of queries.
template <int kHeadDim>
__device__ void find_kinds(const AttentionProblem& p, const DkdvTiles<kHeadDim>& tiles,
                           const DkdvBlock& block) {
  const std::int32_t* index = p.key_index + static_cast<std::int64_t>(block.row) * p.key_len;
  const int end = block.begin + kBlockRows;
  const Visible keys{index[block.begin], index[(end < p.key_len ? end : p.key_len) - 1]};
  for (int tile = static_cast<int>(threadIdx.x) / kWarpSize; tile < block.query_tiles;
       tile += kThreads / kWarpSize) {
    constexpr int kQueries = DkdvTiles<kHeadDim>::kQueries;
    const TileVisibility sight = tile_visibility<kQueries>(p, block.row, tile * kQueries);
    if (lane_of_warp() == 0) {
      tiles.kinds[tile] = !sight.sees(keys)        ? TileKind::kUnseen
                          : sight.sees_whole(keys) ? TileKind::kFull
                                                   : TileKind::kMasked;
    }
  }
}

/// body(tile) for every tile of queries of this kind, in order; a whole warp calls it.
template <class Body>
__device__ void for_each_tile(const TileKind* kinds, int tiles, TileKind kind, const Body& body) {
  for (int base = 0; base < tiles; base += kWarpSize) {
    const int mine = base + lane_of_warp();
    unsigned left = __ballot_sync(kAllLanes, mine < tiles && kinds[mine] == kind ? 1 : 0);
    while (left != 0) {
      body(base + __ffs(static_cast<int>(left)) - 1);
      left &= left - 1;
    }
  }
}

/// One warp: keys and values, then queries, their gradients and what else is known of them. One lane copies
/// tiles, all lanes the rest.
template <int kHeadDim>
__device__ void produce(const AttentionProblem& p, const DkdvTiles<kHeadDim>& tiles, const DkdvBlock& block,
                        const TensorMap& q, const TensorMap& d_o, const TensorMap& k, const TensorMap& v,
                        const float* lse, const float* delta) {
  using Tiles = DkdvTiles<kHeadDim>;
  const bool is_first = lane_of_warp() == 0;
  if (is_first) {
    barrier_expect(tiles.full_keys, 2 * kConsumers * Tiles::kKeyBytes);
    for (int consumer = 0; consumer < kConsumers; ++consumer) {
      const int key = block.begin + consumer * kWarpgroupRows;
      load_tile<kHeadDim>(tiles.keys + consumer * Tiles::kKeyBytes, k, kWarpgroupRows, tiles.full_keys,
                          {0, key, block.kv_head, block.row});
      load_tile<kHeadDim>(tiles.values + consumer * Tiles::kKeyBytes, v, kWarpgroupRows, tiles.full_keys,
                          {0, key, block.kv_head, block.row});
    }
    barrier_arrive(tiles.full_keys);
  }
  RingPlace<Tiles::kStages> place;
  for (int of_group = 0; of_group < p.group_size(); ++of_group) {
    const int head = block.kv_head * p.group_size() + of_group;
    const auto fetch = [&](int tile) {
      const int query = tile * Tiles::kQueries;
      const int stage = place.stage;
      barrier_wait(tiles.empty + stage, place.phase ^ 1U);
      if (is_first) {
        barrier_expect(tiles.full_queries + stage, Tiles::kQueryBytes);
        load_tile<kHeadDim>(tiles.queries + stage * Tiles::kQueryBytes, q, Tiles::kQueries,
                            tiles.full_queries + stage, {0, query, head, block.row});
        barrier_expect(tiles.full_gradients + stage, Tiles::kQueryBytes);
        load_tile<kHeadDim>(tiles.gradients + stage * Tiles::kQueryBytes, d_o, Tiles::kQueries,
                            tiles.full_gradients + stage, {0, query, head, block.row});
        barrier_arrive(tiles.full_gradients + stage);
      }
      for (int i = lane_of_warp(); i < Tiles::kQueries; i += kWarpSize) {
        tiles.statistics[stage * Tiles::kQueries + i] =
            row_statistics(p, lse, delta, block.row, query + i, head);
        tiles.visible[stage * Tiles::kQueries + i] = visible_to(p, block.row, query + i);
      }
      __syncwarp();  // all lanes have written; the arrival passes it on
      if (is_first) {
        barrier_arrive(tiles.full_queries + stage);
      }
      place.advance();
    };
    for_each_tile(tiles.kinds, block.query_tiles, TileKind::kMasked, fetch);
    for_each_tile(tiles.kinds, block.query_tiles, TileKind::kFull, fetch);
  }
}

/// A consumer's 64 keys.
template <int kHeadDim>
struct Consumer {
  using Tiles = DkdvTiles<kHeadDim>;
  using Place = RingPlace<Tiles::kStages>;
  static constexpr int kBlocks = Tiles::kQueries / 8;

  const AttentionProblem& p;
  const DkdvTiles<kHeadDim>& tiles;
  const DkdvBlock& block;
  const float scale_log2;
  const unsigned keys;  // addresses of shared memory
  const unsigned values;
  const unsigned queries;
  const unsigned gradients;
  std::int32_t index[2];  // of the thread's keys

  float dk[kHeadDim / 8][4] = {};
  float dv[kHeadDim / 8][4] = {};

  __device__ Consumer(const AttentionProblem& problem, const DkdvTiles<kHeadDim>& of_block,
                      const DkdvBlock& at, int consumer)
      : p(problem),
        tiles(of_block),
        block(at),
        scale_log2(problem.scale * kLog2E),
        keys(shared_address(of_block.keys + consumer * Tiles::kKeyBytes)),
        values(shared_address(of_block.values + consumer * Tiles::kKeyBytes)),
        queries(shared_address(of_block.queries)),
        gradients(shared_address(of_block.gradients)) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key =
          at.begin + consumer * kWarpgroupRows + accumulator_row(static_cast<int>(threadIdx.x), 2 * half);
      // Rows beyond the last key are computed and not stored.
      index[half] = key < p.key_len ? p.key_index[static_cast<std::int64_t>(block.row) * p.key_len + key] : 0;
    }
  }

  /// Starts product [64 keys, queries] = rows · tileᵀ.
  __device__ void start_product(float (&product)[kBlocks][4], unsigned rows, unsigned tile) {
    const std::uint64_t a = along_columns(rows);
    const std::uint64_t b = along_columns(tile);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kHeadDim / kContraction; ++step) {
      wgmma(product, a + columns_step(step, kWarpgroupRows), b + columns_step(step, Tiles::kQueries),
            step > 0);
    }
    wgmma_commit();
  }
  /// Starts sum += weights [64 keys, queries] · tile.
  __device__ void start_sum(float (&sum)[kHeadDim / 8][4], std::uint32_t (&weights)[kBlocks / 2][4],
                            unsigned tile) {
    const std::uint64_t b = along_rows(tile, Tiles::kQueries);
    pin(weights);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < Tiles::kQueries / kContraction; ++step) {
      wgmma(sum, weights[step], b + rows_step(step));
    }
    wgmma_commit();
  }

  __device__ void start_products(float (&products)[kBlocks][4], const Place& place, unsigned offset) {
    barrier_wait(tiles.full_gradients + place.stage, place.phase);
    start_product(products, values, gradients + offset);
  }

  template <bool kIsMasked>
  __device__ void step(Place& place) {
    float weights[kBlocks][4];   // pᵀ
    float products[kBlocks][4];  // v doᵀ, then dsᵀ
    std::uint32_t packed_weights[kBlocks / 2][4];
    std::uint32_t packed_ds[kBlocks / 2][4];
    const auto offset = static_cast<unsigned>(place.stage * Tiles::kQueryBytes);
    const RowStatistics* statistics = tiles.statistics + place.stage * Tiles::kQueries;
    const Visible* visible = tiles.visible + place.stage * Tiles::kQueries;
    const int thread = static_cast<int>(threadIdx.x);
    barrier_wait(tiles.full_queries + place.stage, place.phase);
    start_product(weights, keys, queries + offset);
    if constexpr (kIsMasked) {  // one product after the other: the mask needs the registers
      wgmma_wait<0>();
    } else {
      start_products(products, place, offset);
      wgmma_wait<1>();
    }
    pin(weights);
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int query = accumulator_column(thread, i, j);
        float weight = exp2_approx(weights[i][j] * scale_log2 - statistics[query].lse_log2);
        if constexpr (kIsMasked) {
          weight = visible[query].sees(index[j / 2]) ? weight : 0.0F;
        }
        weights[i][j] = weight;
      }
    }
    if constexpr (kIsMasked) {
      start_products(products, place, offset);
    }
#pragma unroll
    for (int j = 0; j < kBlocks / 2; ++j) {
      pack_fragment(packed_weights[j], weights, j);
    }
    start_sum(dv, packed_weights, gradients + offset);
    wgmma_wait<1>();  // the products are there, dv is on its way
    pin(products);
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        products[i][j] =
            weights[i][j] * (products[i][j] - statistics[accumulator_column(thread, i, j)].delta);
      }
    }
#pragma unroll
    for (int j = 0; j < kBlocks / 2; ++j) {
      pack_fragment(packed_ds[j], products, j);
    }
    start_sum(dk, packed_ds, queries + offset);
    wgmma_wait<0>();
    pin(dv);
    pin(dk);
    __syncwarp();  // all lanes have read the statistics
    release(tiles.empty + place.stage);
    place.advance();
  }

  __device__ void run() {
    barrier_wait(tiles.full_keys, 0);  // also without a step: the results go through their memory
    Place place;
    for (int of_group = 0; of_group < p.group_size(); ++of_group) {
      for_each_tile(tiles.kinds, block.query_tiles, TileKind::kMasked,
                    [&](int /*tile*/) { step<true>(place); });
      for_each_tile(tiles.kinds, block.query_tiles, TileKind::kFull,
                    [&](int /*tile*/) { step<false>(place); });
    }
  }
};

#endif  // CARAVAN_HOPPER_CODE

/// A block per 128 keys of a key-value head; the first keys first, since under a causal mask they have the
/// most queries.
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    dkdv_kernel(AttentionProblem p, const CARAVAN_GRID_CONSTANT TensorMap q,
                const CARAVAN_GRID_CONSTANT TensorMap d_o, const CARAVAN_GRID_CONSTANT TensorMap k,
                const CARAVAN_GRID_CONSTANT TensorMap v, const CARAVAN_GRID_CONSTANT TensorMap dk,
                const CARAVAN_GRID_CONSTANT TensorMap dv, const float* lse, const float* delta,
                int shared_bytes) {
#if defined(CARAVAN_HOPPER_CODE)
  using Tiles = DkdvTiles<kHeadDim>;
  SharedMemory smem;
  const Tiles tiles = dkdv_tiles<kHeadDim>(smem.take<unsigned char>(shared_bytes));
  const DkdvBlock block{static_cast<int>(blockIdx.x) * kBlockRows, static_cast<int>(blockIdx.y),
                        static_cast<int>(blockIdx.z), (p.query_len + Tiles::kQueries - 1) / Tiles::kQueries};
  if (threadIdx.x == 0) {
    barrier_init(tiles.full_keys, 1);
    for (int stage = 0; stage < Tiles::kStages; ++stage) {
      barrier_init(tiles.full_queries + stage, 1);
      barrier_init(tiles.full_gradients + stage, 1);
      barrier_init(tiles.empty + stage, kConsumerWarps);
    }
    fence_barrier_init();
  }
  find_kinds(p, tiles, block);
  __syncthreads();  // the last one: from here on the roles meet at barriers of their own
  const int warpgroup = warpgroup_of_block();
  if (warpgroup == 0) {
    registers_decrease<kProducerRegisters>();
    if (threadIdx.x < kWarpSize) {
      produce(p, tiles, block, q, d_o, k, v, lse, delta);
    }
  } else {
    registers_increase<kConsumerRegisters>();
    const int number = warpgroup - 1;
    Consumer<kHeadDim> consumer(p, tiles, block, number);
    consumer.run();
    const int key = block.begin + number * kWarpgroupRows;
    const float one[2] = {1.0F, 1.0F};
    const float scale[2] = {p.scale, p.scale};
    store_tile<kHeadDim>(tiles.values + number * Tiles::kKeyBytes, consumer.dv, one, dv, number,
                         {0, key, block.kv_head, block.row});
    store_tile<kHeadDim>(tiles.keys + number * Tiles::kKeyBytes, consumer.dk, scale, dk, number,
                         {0, key, block.kv_head, block.row});
  }
#endif
}

template <int kHeadDim>
void launch_dkdv(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream) {
  using Tiles = DkdvTiles<kHeadDim>;
  const AttentionShape& s = args.shape;
  const auto tokens = [&](const TensorView& x, std::int64_t length, std::int64_t heads) {
    return tensor_map({x.data<BFloat16>(), s.batch, length, heads, s.head_dim}, kWarpgroupRows);
  };
  const int kinds = static_cast<int>((s.query_len + Tiles::kQueries - 1) / Tiles::kQueries);
  const int shared_bytes = Tiles::kSharedBytes + kinds;
  launch("hopper_attention_dkdv", dkdv_kernel<kHeadDim>,
         {.grid = {static_cast<unsigned>((s.key_len + kBlockRows - 1) / kBlockRows),
                   static_cast<unsigned>(s.n_kv_heads), static_cast<unsigned>(s.batch)},
          .block = kThreads,
          .shared_bytes = static_cast<std::size_t>(shared_bytes),
          .stream = stream},
         attention_problem(s, args.mask, args.lse), tokens(args.q, s.query_len, s.n_heads),
         tokens(args.d_o, s.query_len, s.n_heads), tokens(args.k, s.key_len, s.n_kv_heads),
         tokens(args.v, s.key_len, s.n_kv_heads), tokens(args.dk, s.key_len, s.n_kv_heads),
         tokens(args.dv, s.key_len, s.n_kv_heads), args.lse.data<float>(), delta, shared_bytes);
}

}  // namespace

void attention_dkdv(const AttentionBackwardArgs& args, const float* delta, StreamHandle stream) {
  for_each_part(args, [&](const AttentionBackwardArgs& part, std::int64_t first) {
    if (args.shape.head_dim == 64) {
      launch_dkdv<64>(part, delta + first, stream);
    } else {
      launch_dkdv<128>(part, delta + first, stream);
    }
  });
}

}  // namespace caravan::cuda::hopper
