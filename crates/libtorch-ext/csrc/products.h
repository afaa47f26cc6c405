// Products of small matrices with the processor's widest vectors, selected at run time.

#pragma once

#include <algorithm>
#include <cstdint>

#define INLINE inline __attribute__((always_inline))

namespace {

// A vector of floats, at any address.
template <int BYTES>
struct Simd {
  typedef float Vector __attribute__((vector_size(BYTES), aligned(4), may_alias));
  static constexpr int LANES = BYTES / 4;
};

constexpr int64_t COLUMNS = 32;  // widths are rounded up to a multiple: two of the widest vectors
constexpr int64_t GAP = 16;      // keeps rows of a matrix from mapping to the same cache sets

int64_t padded(int64_t n) { return (n + COLUMNS - 1) / COLUMNS * COLUMNS; }

// Rows of floats.
struct Matrix {
  float* data;
  int64_t stride;
  float* row(int64_t i) const { return data + i * stride; }
};

// Left factor of a product, plain or transposed.
struct Left {
  const float* data;
  int64_t row, column;
};
INLINE Left plain(Matrix m) { return {m.data, m.stride, 1}; }
INLINE Left transposed(Matrix m) { return {m.data, 1, m.stride}; }

template <class V, int R>
INLINE void tile(Left a, const float* b, int64_t b_stride, float* c, int64_t c_stride, int64_t depth, bool add) {
  typedef typename V::Vector Vector;
  Vector sums[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++)
      sums[r][v] = add ? *reinterpret_cast<const Vector*>(c + r * c_stride + v * V::LANES) : Vector{};
  for (int64_t k = 0; k < depth; k++) {
    const float* right = b + k * b_stride;
    const Vector b0 = *reinterpret_cast<const Vector*>(right), b1 = *reinterpret_cast<const Vector*>(right + V::LANES);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
      const float x = a.data[r * a.row + k * a.column];
      sums[r][0] += x * b0;
      sums[r][1] += x * b1;
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) *reinterpret_cast<Vector*>(c + r * c_stride + v * V::LANES) = sums[r][v];
}

// c = a b, or c += a b: (rows, depth) (depth, columns), columns a multiple of COLUMNS.
template <class V>
INLINE void product(Left a, Matrix b, Matrix c, int64_t rows, int64_t columns, int64_t depth, bool add) {
  for (int64_t column = 0; column < columns; column += 2 * V::LANES)
    for (int64_t row = 0; row < rows; row += 6) {
      const Left left = {a.data + row * a.row, a.row, a.column};
      const float* right = b.data + column;
      float* out = c.row(row) + column;
      switch (std::min<int64_t>(rows - row, 6)) {
        case 1: tile<V, 1>(left, right, b.stride, out, c.stride, depth, add); break;
        case 2: tile<V, 2>(left, right, b.stride, out, c.stride, depth, add); break;
        case 3: tile<V, 3>(left, right, b.stride, out, c.stride, depth, add); break;
        case 4: tile<V, 4>(left, right, b.stride, out, c.stride, depth, add); break;
        case 5: tile<V, 5>(left, right, b.stride, out, c.stride, depth, add); break;
        default: tile<V, 6>(left, right, b.stride, out, c.stride, depth, add);
      }
    }
}

// `work.run<V>(scratch)` for the widest vectors.
template <class Work, class Scratch>
void run_plain(const Work& work, Scratch& scratch) { work.template run<Simd<16>>(scratch); }
#if defined(__x86_64__)
template <class Work, class Scratch>
__attribute__((target("avx2,fma"))) void run_avx2(const Work& work, Scratch& scratch) { work.template run<Simd<32>>(scratch); }
template <class Work, class Scratch>
__attribute__((target("avx512f"))) void run_avx512(const Work& work, Scratch& scratch) { work.template run<Simd<64>>(scratch); }
#endif

template <class Work, class Scratch>
auto best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return run_avx512<Work, Scratch>;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return run_avx2<Work, Scratch>;
#endif
  return run_plain<Work, Scratch>;
}

}  // namespace
