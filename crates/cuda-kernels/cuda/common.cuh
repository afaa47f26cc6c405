// What the kernels share. Each source is compiled for THREADS, those of a block, and what it says itself. Written without CUDA's own headers, so that neither the compiler that the program carries its
// source to (NVRTC) nor the one that the tests run it with on a processor needs any.

using bf16 = unsigned short; // the upper half of a float
using int8 = signed char;

constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;
#define NOTHING __uint_as_float(0xff800000u) // the score of what is not seen: minus infinity

__device__ inline float widen(bf16 value) { return __uint_as_float(static_cast<unsigned>(value) << 16); }

// Rounds to the nearest, ties to even. NaN stays NaN.
__device__ inline bf16 narrow(float value) {
    const unsigned bits = __float_as_uint(value);
    const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<bf16>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

__device__ inline float number(float value) { return value; }
__device__ inline float number(bf16 value) { return widen(value); }

__device__ inline void put(float *place, float value) { *place = value; }
__device__ inline void put(bf16 *place, float value) { *place = narrow(value); }

// What one thread reads at a time: 16 bytes.
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

__device__ inline void store(const float (&from)[8], bf16 *to) {
    unsigned words[4];
    for (int i = 0; i < 4; ++i) words[i] = narrow(from[2 * i]) | static_cast<unsigned>(narrow(from[2 * i + 1])) << 16;
    *reinterpret_cast<uint4 *>(to) = uint4{words[0], words[1], words[2], words[3]};
}

__device__ inline void load(const int8 *from, float (&to)[16]) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(from);
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
    for (int i = 0; i < 16; ++i) to[i] = static_cast<int8>(words[i / 4] >> (8 * (i % 4)));
}

// Over groups of `count` neighbouring lanes, a power of two; every lane of the warp must call it.
template <int count = WARP>
__device__ inline float sum_of_lanes(float value) {
    for (int other = count / 2; other > 0; other /= 2) value += __shfl_xor_sync(ALL, value, other);
    return value;
}

// NaN where either is, which `fmaxf` is not.
__device__ inline float larger(float a, float b) { return b > a || b != b ? b : a; }

__device__ inline float max_of_lanes(float value) {
    for (int other = WARP / 2; other > 0; other /= 2) value = larger(value, __shfl_xor_sync(ALL, value, other));
    return value;
}

// Over a block of `threads`, which all call it; `room` has a place for each warp.
template <int threads>
__device__ inline float sum_of_block(float value, float *room) {
    value = sum_of_lanes(value);
    __syncthreads(); // the room may still be read from
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < threads / WARP; ++i) sum += room[i];
    return sum;
}

template <int threads>
__device__ inline float max_of_block(float value, float *room) {
    value = max_of_lanes(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = value;
    __syncthreads();
    float max = room[0];
    for (int i = 1; i < threads / WARP; ++i) max = larger(max, room[i]);
    return max;
}

__device__ inline float silu(float x) { return x / (1.0f + expf(-x)); }
