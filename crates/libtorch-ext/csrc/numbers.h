// Elementwise loops of the fused layers.

#pragma once

#include <cstdint>
#include <cstring>

// The compiler generates each loop for several processors; the version is selected when the program
// starts.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

namespace {

CLONES void widen(const uint16_t* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const uint32_t bits = uint32_t(from[i]) << 16;
    std::memcpy(to + i, &bits, 4);
  }
}

// Rounds to nearest, ties to even. NaN stays NaN.
CLONES void narrow(const float* from, uint16_t* to, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, from + i, 4);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    to[i] = uint16_t((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
  }
}

// Cephes' exponential, 2^n times a polynomial, to within 2 units in the last place; arguments are
// clamped to ±87.
inline float exponential(float z) {
  z = z < -87.0f ? -87.0f : z;
  z = z > 87.0f ? 87.0f : z;
  const float shifted = z * 1.44269504088896341f + 12582912.0f;  // the sum's last bits are the nearest whole number
  const float n = shifted - 12582912.0f;
  const float r = z - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t bits = uint32_t(int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

}  // namespace
