// Sampling: logits and uniforms → codes. Guidance, temperature, top-k, min-p, and inverse-CDF
// sampling in double precision. One block per image.
//
// Compiled for CODES, the size of the vocabulary.

constexpr int PER_THREAD = (CODES + THREADS - 1) / THREADS; // consecutive codes of a thread

struct Sample {
    const float *logits;       // (rows, CODES): conditional; under guidance followed by the unconditional ones
    const float *scales;       // (steps) guidance scales; null: no guidance
    const double *uniforms;    // (images, steps), below 1
    const long long *position; // of the last input code
    long long *codes;          // (images, steps)
    long long *input;          // (rows): the next step's input
    int images, steps;
    int before;      // position whose logits give the first code
    int top_k;       // 0: all; at most CODES
    int greedy;      // take the most probable code, without randomness
    float temperature;
    float margin;    // codes whose logits are further than this below the largest are removed; negative: none
};

constexpr int NOT_FINITE = -1; // code of a row that is no distribution: NaN, +inf, or -inf throughout

// Maps floats to unsigned integers of the same order.
__device__ unsigned order_key(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Key of the k-th largest of all threads' values, by radix select from the highest digit.
__device__ unsigned kth_largest(const float (&values)[PER_THREAD], int k) {
    __shared__ int counts[256];
    __shared__ unsigned found;
    __shared__ int left;
    if (threadIdx.x == 0) found = 0, left = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += THREADS) counts[i] = 0;
        __syncthreads();
        const unsigned above = found, mask = shift == 24 ? 0u : ~0u << (shift + 8);
        for (int i = 0; i < PER_THREAD; ++i) {
            const unsigned key = order_key(values[i]);
            if ((key & mask) == above) atomicAdd(&counts[key >> shift & 255u], 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int digit = 255;
            while (counts[digit] < left) left -= counts[digit--];
            found |= static_cast<unsigned>(digit) << shift;
        }
        __syncthreads();
    }
    return found;
}

extern "C" __global__ void __launch_bounds__(THREADS) sample(const Sample d) {
    __shared__ float smem[THREADS / WARP];
    __shared__ double sums[THREADS];
    __shared__ int sampled;
    const int image = blockIdx.x, step = static_cast<int>(*d.position) - d.before, first = threadIdx.x * PER_THREAD;
    const float *cond = d.logits + static_cast<size_t>(image) * CODES;
    const float *uncond = cond + static_cast<size_t>(d.images) * CODES;
    const float scale = d.scales ? d.scales[step] : 1.0f;
    float values[PER_THREAD], largest = NEG_INF; // NaN if one is
    for (int i = 0; i < PER_THREAD; ++i) {
        const int code = first + i;
        values[i] = NEG_INF;
        if (code >= CODES) continue;
        const float value = scale > 1.0f ? uncond[code] + (cond[code] - uncond[code]) * scale : cond[code];
        values[i] = value / d.temperature;
        largest = nan_max(largest, values[i]);
    }
    largest = max_of_block<THREADS>(largest, smem);
    const bool finite = largest > NEG_INF && largest < -NEG_INF;
    unsigned threshold = d.top_k > 0 ? kth_largest(values, d.top_k) : 0u;
    if (d.margin >= 0.0f) {
        const unsigned near = order_key(largest - d.margin);
        threshold = near > threshold ? near : threshold;
    }
    double sum = 0.0;
    for (int i = 0; i < PER_THREAD; ++i) {
        if (order_key(values[i]) < threshold) values[i] = NEG_INF;
        sum += exp(static_cast<double>(values[i]) - static_cast<double>(largest));
    }
    sums[threadIdx.x] = sum;
    if (threadIdx.x == 0) sampled = CODES;
    __syncthreads();
    for (int distance = 1; distance < THREADS; distance *= 2) { // inclusive prefix sums
        const double before = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0.0;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
    const double target = d.greedy ? -1.0 : d.uniforms[static_cast<size_t>(image) * d.steps + step] * sums[THREADS - 1];
    double running = threadIdx.x ? sums[threadIdx.x - 1] : 0.0;
    if (running <= target && target < sums[threadIdx.x]) {
        int code = 0;
        for (int i = 0; i < PER_THREAD; ++i) {
            const double weight = exp(static_cast<double>(values[i]) - static_cast<double>(largest));
            if (weight == 0.0) continue;
            code = first + i;
            running += weight;
            if (running > target) break;
        }
        atomicMin(&sampled, code);
    }
    __syncthreads();
    const bool none = sampled == CODES; // greedy, or rounding left a gap
    __syncthreads();
    for (int i = PER_THREAD - 1; none && i >= 0; --i) {
        if (values[i] == largest) atomicMin(&sampled, first + i);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    d.codes[static_cast<size_t>(image) * d.steps + step] = finite ? sampled : NOT_FINITE;
    d.input[image] = finite ? sampled : 0;
    if (d.scales) d.input[d.images + image] = d.input[image];
}
