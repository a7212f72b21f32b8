// Shapes of up to four dims, and the letters the whole project uses for sizes:
//   B batch  S sequence  T tokens (B·S, local)  D hidden_size  F intermediate_size  H n_heads  G n_kv_heads
//   E head_dim  V vocab_size  L layers  R adapter rank;  suffix _local or /tp = this rank's part: [T, F/tp].
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace caravan {

class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims);

  int rank() const { return rank_; }
  /// Size of `dim`; throws when out of range.
  std::int64_t operator[](int dim) const;
  void set(int dim, std::int64_t size);
  void append(std::int64_t size);
  /// Product of all dims; 1 for rank 0. Throws on overflow of int64.
  std::int64_t numel() const;
  /// "[4, 64]"
  std::string str() const;

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace caravan
