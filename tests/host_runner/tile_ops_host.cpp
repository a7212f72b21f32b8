// The host forms of kernels/cuda/tile_ops.h: the fragment layouts of the PTX ISA (8.x, "Matrix fragments for
// mma.m16n8k16" and "ldmatrix") by the book, and cp.async as late as the rules allow.
#include <algorithm>
#include <array>
#include <cstring>

#include "host_runner/runner.h"
#include "host_runner/sanitizers.h"
#include "kernels/cuda/tile_ops.h"

namespace caravan::host_runner {
namespace {
std::int64_t conflicts = 0;

/// Pieces of shared memory begin at multiples of 128 bytes, so an address says the bank.
void count_conflicts(const void* const (&rows)[8]) {
  std::array<int, 8> rows_in{};  // each group of 4 banks
  for (const void* row : rows) {
    const std::size_t group = reinterpret_cast<std::uintptr_t>(row) / 16 % 8;
    conflicts += rows_in[group]++ > 0 ? 1 : 0;
  }
}
}  // namespace

std::int64_t bank_conflicts() {
  return conflicts;
}

}  // namespace caravan::host_runner

namespace caravan::cuda {

using host_runner::runner;
using host_runner::Site;

namespace {

float low_half(std::uint32_t pair) {
  return __uint_as_float(pair << 16U);
}
float high_half(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000U);
}

struct MmaPayload {
  float* d;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

/// Lane = 4 · group + member. A [16, 16]: register 0 holds row group, columns 2·member and the next; 1 the
/// row 8 below; 2 and 3 the same 8 columns further. B [16, 8]: register 0 holds rows 2·member and the next of
/// column group; 1 the rows 8 below. D [16, 8]: elements 0, 1 are row group, columns 2·member and the next;
/// 2, 3 the row 8 below.
void resolve_mma(void* const (&payloads)[32], unsigned /*mask*/) {
  float a[16][16];
  float b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& payload = *static_cast<const MmaPayload*>(payloads[lane]);
    const int group = lane / 4;
    const int member = lane % 4;
    for (int r = 0; r < 4; ++r) {
      const int row = group + 8 * (r % 2);
      const int column = 2 * member + 8 * (r / 2);
      a[row][column] = low_half(payload.a[r]);
      a[row][column + 1] = high_half(payload.a[r]);
    }
    for (int r = 0; r < 2; ++r) {
      b[2 * member + 8 * r][group] = low_half(payload.b[r]);
      b[2 * member + 8 * r + 1][group] = high_half(payload.b[r]);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* d = static_cast<const MmaPayload*>(payloads[lane])->d;
    for (int r = 0; r < 4; ++r) {
      const int row = lane / 4 + 8 * (r / 2);
      const int column = 2 * (lane % 4) + r % 2;
      for (int k = 0; k < 16; ++k) {
        d[r] += a[row][k] * b[k][column];
      }
    }
  }
}

struct LoadPayload {
  std::uint32_t* registers;
  const void* row;
  bool is_transposed;
};

/// Lane l names row l % 8 of matrix l / 8; register i of a lane is the pair (row lane / 4, columns 2 · (lane
/// % 4) and the next) of matrix i, or of its transpose.
void resolve_ldmatrix(void* const (&payloads)[32], unsigned /*mask*/) {
  std::uint16_t matrices[4][8][8];
  const void* rows[4][8];
  for (int lane = 0; lane < 32; ++lane) {
    rows[lane / 8][lane % 8] = static_cast<const LoadPayload*>(payloads[lane])->row;
    std::memcpy(matrices[lane / 8][lane % 8], rows[lane / 8][lane % 8], 16);
  }
  for (const auto& matrix : rows) {
    host_runner::count_conflicts(matrix);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& payload = *static_cast<const LoadPayload*>(payloads[lane]);
    const int row = lane / 4;
    const int column = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      const auto& m = matrices[i];
      const std::uint32_t low = payload.is_transposed ? m[column][row] : m[row][column];
      const std::uint32_t high = payload.is_transposed ? m[column + 1][row] : m[row][column + 1];
      payload.registers[i] = low | (high << 16U);
    }
  }
}

void load_matrices(const char* operation, std::uint32_t (&registers)[4], const void* row, bool is_transposed,
                   Site site) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
    host_runner::fail_thread("ldmatrix reads a row that is not aligned to 16 bytes", site);
  }
  host_runner::note_read(row, 16);
  LoadPayload payload{registers, row, is_transposed};
  host_runner::warp_exchange(operation, 0xffffffffU, resolve_ldmatrix, &payload, site);
}

}  // namespace

void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const char* file,
                  int line) {
  MmaPayload payload{d, a, b};
  host_runner::warp_exchange("mma.sync", 0xffffffffU, resolve_mma, &payload, {file, line});
}

void ldmatrix_x4(std::uint32_t (&registers)[4], const void* row, const char* file, int line) {
  load_matrices("ldmatrix", registers, row, false, {file, line});
}

void ldmatrix_x4_trans(std::uint32_t (&registers)[4], const void* row, const char* file, int line) {
  load_matrices("ldmatrix.trans", registers, row, true, {file, line});
}

/// The destination is NaN until a wait covers the copy's group.
void cp_async_16(void* shared, const void* global, bool is_there, const char* file, int line) {
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 != 0 ||
      reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
    host_runner::fail_thread("cp.async of an address that is not aligned to 16 bytes", {file, line});
  }
  host_runner::note_write(shared, 16);
  if (is_there) {
    host_runner::note_read(global, 16);
  }
  const host_runner::RunnerWork work;
  std::memset(shared, 0xff, 16);
  auto& thread = runner().current();
  thread.copies.push_back({shared, is_there ? global : nullptr, 16, thread.copy_group});
}

void cp_async_commit() {
  ++runner().current().copy_group;
}

void cp_async_wait_at_most(int groups) {
  auto& thread = runner().current();
  const auto has_arrived = [&](const host_runner::PendingCopy& copy) {
    return copy.group < thread.copy_group - groups;
  };
  for (const host_runner::PendingCopy& copy : thread.copies) {
    if (has_arrived(copy)) {
      host_runner::note_write(copy.to, copy.bytes);
      const host_runner::RunnerWork work;
      if (copy.from == nullptr) {
        std::memset(copy.to, 0, copy.bytes);
      } else {
        std::memcpy(copy.to, copy.from, copy.bytes);
      }
    }
  }
  const host_runner::RunnerWork work;
  thread.copies.erase(std::remove_if(thread.copies.begin(), thread.copies.end(), has_arrived),
                      thread.copies.end());
}

}  // namespace caravan::cuda
