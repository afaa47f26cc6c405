// Logits and a random number become a code: guidance, temperature, the largest k, those not far below the best, and the
// inverse of the cumulative distribution, in double precision.
//
// Compiled for CODES, how many there are.

constexpr int EACH = (CODES + THREADS - 1) / THREADS; // neighbouring codes of a thread

struct Draw {
    const float *logits;       // (rows, CODES): of the images, and under guidance after them without the condition
    const float *scales;       // (steps), of guidance; null: none
    const double *uniforms;    // (images, steps), below 1
    const long long *position; // of the code that has just gone in
    long long *codes;          // (images, steps)
    long long *input;          // (rows): what goes in next
    int images, steps;
    int before;      // the position at which the first code is drawn
    int top_k;       // 0: all; not more than CODES
    int best;        // the best one, and no randomness
    float temperature;
    float margin;    // logits this far below the best are left out; below 0: none are
};

constexpr int NOT_FINITE = -1; // the code of a row that is no distribution: NaN, +inf, or -inf throughout

// Unsigned numbers in the order of floats.
__device__ unsigned in_order(float value) {
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The number of the k-th largest of all threads' values, digit by digit from the top.
__device__ unsigned kth_largest(const float (&values)[EACH], int k) {
    __shared__ int counts[256];
    __shared__ unsigned found;
    __shared__ int left;
    if (threadIdx.x == 0) found = 0, left = k;
    for (int shift = 24; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += THREADS) counts[i] = 0;
        __syncthreads();
        const unsigned above = found, mask = shift == 24 ? 0u : ~0u << (shift + 8);
        for (int i = 0; i < EACH; ++i) {
            const unsigned key = in_order(values[i]);
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

// A block works on one image.
extern "C" __global__ void __launch_bounds__(THREADS) draw(const Draw d) {
    __shared__ float room[THREADS / WARP];
    __shared__ double sums[THREADS];
    __shared__ int chosen;
    const int image = blockIdx.x, step = static_cast<int>(*d.position) - d.before, first = threadIdx.x * EACH;
    const float *with = d.logits + static_cast<size_t>(image) * CODES;
    const float *without = with + static_cast<size_t>(d.images) * CODES;
    const float scale = d.scales ? d.scales[step] : 1.0f;
    float values[EACH], largest = NOTHING; // NaN where one is
    for (int i = 0; i < EACH; ++i) {
        const int code = first + i;
        values[i] = NOTHING;
        if (code >= CODES) continue;
        const float value = scale > 1.0f ? without[code] + (with[code] - without[code]) * scale : with[code];
        values[i] = value / d.temperature;
        largest = larger(largest, values[i]);
    }
    largest = max_of_block<THREADS>(largest, room);
    const bool finite = largest > NOTHING && largest < -NOTHING;
    unsigned least = d.top_k > 0 ? kth_largest(values, d.top_k) : 0u;
    if (d.margin >= 0.0f) {
        const unsigned near = in_order(largest - d.margin);
        least = near > least ? near : least;
    }
    double sum = 0.0;
    for (int i = 0; i < EACH; ++i) {
        if (in_order(values[i]) < least) values[i] = NOTHING;
        sum += exp(static_cast<double>(values[i]) - static_cast<double>(largest));
    }
    sums[threadIdx.x] = sum;
    if (threadIdx.x == 0) chosen = CODES;
    __syncthreads();
    for (int distance = 1; distance < THREADS; distance *= 2) { // each becomes the sum of all up to it
        const double before = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0.0;
        __syncthreads();
        sums[threadIdx.x] += before;
        __syncthreads();
    }
    const double target = d.best ? -1.0 : d.uniforms[static_cast<size_t>(image) * d.steps + step] * sums[THREADS - 1];
    double running = threadIdx.x ? sums[threadIdx.x - 1] : 0.0;
    if (running <= target && target < sums[threadIdx.x]) {
        int code = 0;
        for (int i = 0; i < EACH; ++i) {
            const double share = exp(static_cast<double>(values[i]) - static_cast<double>(largest));
            if (share == 0.0) continue;
            code = first + i;
            running += share;
            if (running > target) break;
        }
        atomicMin(&chosen, code);
    }
    __syncthreads();
    const bool none = chosen == CODES; // the best is wanted, or rounding left a gap
    __syncthreads();
    for (int i = EACH - 1; none && i >= 0; --i) {
        if (values[i] == largest) atomicMin(&chosen, first + i);
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    d.codes[static_cast<size_t>(image) * d.steps + step] = finite ? chosen : NOT_FINITE;
    d.input[image] = finite ? chosen : 0;
    if (d.scales) d.input[d.images + image] = d.input[image];
}
