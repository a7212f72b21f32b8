// The CPU backend: large products by OpenBLAS, everything else by our own vectorised loops and threads.
#pragma once

#include <memory>

#include "caravan/backend/backend.h"
#include "kernels/cpu/dispatch.h"

namespace caravan {

/// Computes in float32 and float64, with the instruction set preferred_simd_level() gives. One backend serves
/// one calling thread at a time (it keeps scratch memory between calls); its own threads are those of
/// parallel_for. Except for the large products, no result depends on the number of threads.
std::unique_ptr<Backend> make_cpu_backend();
/// As above with a given, available level.
std::unique_ptr<Backend> make_cpu_backend(SimdLevel level);

/// Threads of this process for all ops, products included. OpenBLAS itself stays at one thread and is called
/// from ours: its own threads would spin beside them. Call between ops only.
void set_cpu_threads(int count);

}  // namespace caravan
