// Shared by all kernels. Each source is compiled for THREADS, the threads of a block, and for the
// macros that it names. Includes no CUDA headers, so that neither NVRTC nor the C++ compiler of the
// CPU emulator needs any.

using bf16 = unsigned short; // the upper half of a float
using int8 = signed char;

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
#define NEG_INF __uint_as_float(0xff800000u)

__device__ inline float to_f32(float value) { return value; }
__device__ inline float to_f32(bf16 value) { return __uint_as_float(static_cast<unsigned>(value) << 16); }

// Rounds to the nearest, ties to even. NaN stays NaN.
__device__ inline bf16 to_bf16(float value) {
    const unsigned bits = __float_as_uint(value);
    const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<bf16>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

// Numbers in the 16 bytes that a thread loads at a time.
template <typename T>
constexpr int CHUNK = 16 / sizeof(T);

__device__ inline void load(const bf16 *from, float (&to)[8]) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(from);
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
    for (int i = 0; i < 4; ++i) {
        to[2 * i] = __uint_as_float(words[i] << 16);
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

__device__ inline void store(float value, float *to) { *to = value; }
__device__ inline void store(float value, bf16 *to) { *to = to_bf16(value); }

__device__ inline void store(const float (&from)[8], bf16 *to) {
    unsigned words[4];
    for (int i = 0; i < 4; ++i) words[i] = to_bf16(from[2 * i]) | static_cast<unsigned>(to_bf16(from[2 * i + 1])) << 16;
    *reinterpret_cast<uint4 *>(to) = uint4{words[0], words[1], words[2], words[3]};
}

__device__ inline void load(const int8 *from, float (&to)[16]) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(from);
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
    for (int i = 0; i < 16; ++i) to[i] = static_cast<int8>(words[i / 4] >> (8 * (i % 4)));
}

// Sum over groups of `count` neighbouring lanes, a power of two. Every lane of the warp must call
// it.
template <int count = WARP>
__device__ inline float sum_of_lanes(float value) {
    for (int other = count / 2; other > 0; other /= 2) value += __shfl_xor_sync(ALL, value, other);
    return value;
}

// Maximum; unlike with `fmaxf`, NaN if either is NaN.
__device__ inline float nan_max(float a, float b) { return b > a || b != b ? b : a; }

__device__ inline float max_of_lanes(float value) {
    for (int other = WARP / 2; other > 0; other /= 2) value = nan_max(value, __shfl_xor_sync(ALL, value, other));
    return value;
}

// Sum over a block of `threads`, which all must call it; `smem` has one element per warp.
template <int threads>
__device__ inline float sum_of_block(float value, float *smem) {
    value = sum_of_lanes(value);
    __syncthreads(); // `smem` may still be in use
    if (threadIdx.x % WARP == 0) smem[threadIdx.x / WARP] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < threads / WARP; ++i) sum += smem[i];
    return sum;
}

template <int threads>
__device__ inline float max_of_block(float value, float *smem) {
    value = max_of_lanes(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) smem[threadIdx.x / WARP] = value;
    __syncthreads();
    float max = smem[0];
    for (int i = 1; i < threads / WARP; ++i) max = nan_max(max, smem[i]);
    return max;
}

__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }
