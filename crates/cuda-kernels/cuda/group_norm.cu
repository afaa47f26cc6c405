// Group norm of channels-last bf16 maps, with an optional SiLU, in three kernels: sums over slices
// of each image, scale and shift of each channel, and a pass that applies them.
//
// Compiled for CHANNELS and GROUPS.

constexpr int PART = CHUNK<bf16>, PARTS = CHANNELS / PART; // channels of a load, loads of a pixel
constexpr int WIDTH = CHANNELS / GROUPS;                   // channels of a group
constexpr int PIXELS = THREADS / PARTS;                    // pixels that a block reads at a time
static_assert(CHANNELS % PART == 0 && PARTS <= THREADS && CHANNELS % GROUPS == 0, "channels of that number");

struct GroupNorm {
    const bf16 *input;        // (images, pixels, CHANNELS)
    bf16 *output;             // the same
    float *sums;              // (images, slices, 2, CHANNELS): sums of values and of squares
    float *affine;            // (images, 2, CHANNELS): factor and summand
    const float *scale;       // (CHANNELS), or (images, CHANNELS); null: 1
    const float *shift;       // likewise; null: 0
    int pixels, slices, step; // pixels of a slice
    int per_image;            // whether scale and shift have an axis of images
    int silu;
    float eps;
};

// One block per slice (x) and image (y).
extern "C" __global__ void __launch_bounds__(THREADS) sums_of_slices(const GroupNorm n) {
    __shared__ float sums[2][CHANNELS];
    const int part = threadIdx.x % PARTS, row = threadIdx.x / PARTS;
    const int begin = blockIdx.x * n.step, end = begin + n.step < n.pixels ? begin + n.step : n.pixels;
    float sum[PART] = {}, square[PART] = {};
#pragma unroll 4
    for (int p = begin + row; p < end; p += PIXELS) {
        if (row >= PIXELS) break; // threads beyond the last whole pixel
        float x[PART];
        load(n.input + (static_cast<size_t>(blockIdx.y) * n.pixels + p) * CHANNELS + part * PART, x);
        for (int i = 0; i < PART; ++i) sum[i] += x[i], square[i] += x[i] * x[i];
    }
    for (int pixel = 0; pixel < PIXELS; ++pixel) { // in a fixed order, for deterministic sums
        if (row == pixel) {
            for (int i = 0; i < PART; ++i) {
                const int c = part * PART + i;
                sums[0][c] = (pixel ? sums[0][c] : 0.0f) + sum[i];
                sums[1][c] = (pixel ? sums[1][c] : 0.0f) + square[i];
            }
        }
        __syncthreads();
    }
    float *to = n.sums + (static_cast<size_t>(blockIdx.y) * n.slices + blockIdx.x) * 2 * CHANNELS;
    for (int c = threadIdx.x; c < CHANNELS; c += THREADS) to[c] = sums[0][c], to[CHANNELS + c] = sums[1][c];
}

// One block per group (x) and image (y).
extern "C" __global__ void __launch_bounds__(THREADS) affine_of_groups(const GroupNorm n) {
    __shared__ double parts[2][THREADS];
    const float *from = n.sums + static_cast<size_t>(blockIdx.y) * n.slices * 2 * CHANNELS + blockIdx.x * WIDTH;
    double sum = 0.0, square = 0.0;
    for (int i = threadIdx.x; i < n.slices * WIDTH; i += THREADS) {
        const float *at = from + static_cast<size_t>(i / WIDTH) * 2 * CHANNELS + i % WIDTH;
        sum += at[0], square += at[CHANNELS];
    }
    parts[0][threadIdx.x] = sum, parts[1][threadIdx.x] = square;
    __syncthreads();
    if (threadIdx.x >= WIDTH) return;
    sum = square = 0.0;
    for (int i = 0; i < THREADS; ++i) sum += parts[0][i], square += parts[1][i];
    const double count = static_cast<double>(n.pixels) * WIDTH, mean = sum / count;
    const double variance = square / count - mean * mean;
    const float root = rsqrtf(static_cast<float>(variance < 0.0 ? 0.0 : variance) + n.eps);
    const int c = blockIdx.x * WIDTH + threadIdx.x;
    const size_t at = n.per_image ? static_cast<size_t>(blockIdx.y) * CHANNELS + c : c;
    const float factor = root * (n.scale ? n.scale[at] : 1.0f);
    float *to = n.affine + static_cast<size_t>(blockIdx.y) * 2 * CHANNELS + c;
    to[0] = factor;
    to[CHANNELS] = (n.shift ? n.shift[at] : 0.0f) - static_cast<float>(mean) * factor;
}

// One block per slice (x) and image (y).
extern "C" __global__ void __launch_bounds__(THREADS) apply(const GroupNorm n) {
    const int part = threadIdx.x % PARTS, row = threadIdx.x / PARTS;
    if (row >= PIXELS) return;
    const int begin = blockIdx.x * n.step, end = begin + n.step < n.pixels ? begin + n.step : n.pixels;
    const float *affine = n.affine + static_cast<size_t>(blockIdx.y) * 2 * CHANNELS + part * PART;
    float factor[PART], summand[PART];
    for (int i = 0; i < PART; ++i) factor[i] = affine[i], summand[i] = affine[CHANNELS + i];
#pragma unroll 4
    for (int p = begin + row; p < end; p += PIXELS) {
        const size_t at = (static_cast<size_t>(blockIdx.y) * n.pixels + p) * CHANNELS + part * PART;
        float x[PART];
        load(n.input + at, x);
        for (int i = 0; i < PART; ++i) {
            x[i] = x[i] * factor[i] + summand[i];
            if (n.silu) x[i] = silu(x[i]);
        }
        store(x, n.output + at);
    }
}
