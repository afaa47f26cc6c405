// Attention of new positions over the KV cache, with norms of queries and keys and rotary embedding,
// and the writing of their keys and values. One block per head and new position.
//
// Compiled for HEAD, the width of a head; PADDED_HEAD, its width in the cache, padded with zeros;
// CACHED, the type of keys and values (bf16, or int8 with a scale per position and head);
// ACTIVATION, the type of inputs and outputs; LENGTH, the positions of the cache.

constexpr int WARPS = THREADS / WARP;
constexpr int PART = CHUNK<CACHED>, PARTS = PADDED_HEAD / PART; // a position's row of a head, as threads read it
static_assert(PADDED_HEAD % PART == 0 && PADDED_HEAD >= HEAD && PARTS <= WARP && HEAD % 2 == 0, "heads of that width");

__device__ constexpr int power_of_two(int n) { return n <= 1 ? 1 : 2 * power_of_two((n + 1) / 2); }
constexpr int GROUP = power_of_two(PARTS);  // lanes per position
constexpr int GROUPS = THREADS / GROUP;     // positions that the block reads at a time

struct Attention {
    const ACTIVATION *qkv;          // (sequences, count, heads + 2 kv_heads, HEAD): queries, keys, values
    ACTIVATION *output;             // (sequences, count, heads, HEAD)
    CACHED *keys, *values;          // (sequences, kv_heads, LENGTH, PADDED_HEAD)
    float *key_scales, *value_scales; // (sequences, kv_heads, LENGTH), int8 only
    const float *qk_norm;           // (4, HEAD): weight and bias of the queries' norm, of the keys'; null: no norms
    const float *rope;              // (positions, HEAD / 2, 2): cosine and sine; null: no rotary embedding
    const unsigned char *prefix_mask; // (sequences, prefix): 1 where attended to; null: everywhere
    const long long *position;      // of the first new position, of all sequences or of each
    const long long *sequence;      // of the cache, for each sequence; null: its own number
    int each;                       // 1 where each sequence has its own position
    int count;                      // new positions per sequence
    int prefix;
    int kv_heads;                   // heads of keys and values, each shared by neighbouring query heads
};

// Stores one head's new key or value, by one warp.
__device__ void store_kv(const float *numbers, bf16 *to, float *, int lane) {
    for (int c = lane; c < PADDED_HEAD; c += WARP) to[c] = to_bf16(numbers[c]);
}

__device__ void store_kv(const float *numbers, int8 *to, float *scale, int lane) {
    float largest = 0.0f;
    for (int c = lane; c < PADDED_HEAD; c += WARP) largest = nan_max(largest, fabsf(numbers[c]));
    largest = max_of_lanes(largest);
    const bool finite = largest < -NEG_INF; // else the scale is NaN
    const float steps = largest > 0.0f && finite ? 127.0f / largest : 0.0f;
    for (int c = lane; c < PADDED_HEAD; c += WARP) to[c] = finite ? static_cast<int8>(rintf(numbers[c] * steps)) : 0;
    if (lane == 0) *scale = finite ? largest / 127.0f : __uint_as_float(0x7fc00000u);
}

// Layer norm of a head's channels in shared memory, of which each thread has pairs.
__device__ void layer_norm(float *x, const float *weight_and_bias, float *smem) {
    const float *weight = weight_and_bias, *bias = weight_and_bias + HEAD;
    float sum = 0.0f, squares = 0.0f;
    for (int c = 2 * threadIdx.x; c < HEAD; c += 2 * THREADS) sum += x[c] + x[c + 1];
    const float mean = sum_of_block<THREADS>(sum, smem) / HEAD;
    for (int c = 2 * threadIdx.x; c < HEAD; c += 2 * THREADS) {
        const float a = x[c] - mean, b = x[c + 1] - mean;
        squares += a * a + b * b;
    }
    const float factor = rsqrtf(sum_of_block<THREADS>(squares, smem) / HEAD + 1e-5f);
    for (int c = 2 * threadIdx.x; c < HEAD; c += 2 * THREADS)
        for (int i = c; i < c + 2; ++i) x[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

__device__ void rotate(float *pair, const float *angle) {
    const float x = pair[0], y = pair[1];
    pair[0] = x * angle[0] - y * angle[1];
    pair[1] = x * angle[1] + y * angle[0];
}

template <bool writes, bool attends>
__device__ void attention(const Attention &a) {
    __shared__ float q[PADDED_HEAD], k[PADDED_HEAD], v[PADDED_HEAD], scores[LENGTH], sums[WARPS][PADDED_HEAD], smem[WARPS];
    const int head = blockIdx.y, heads = gridDim.y, shared = head / (heads / a.kv_heads);
    const int row = blockIdx.x / a.count;
    const int sequence = a.sequence ? static_cast<int>(a.sequence[row]) : row;
    const int position = static_cast<int>(a.position[row * a.each]) + blockIdx.x % a.count;
    const size_t first = (static_cast<size_t>(sequence) * a.kv_heads + shared) * LENGTH; // of this sequence and head
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

    const ACTIVATION *in = a.qkv + static_cast<size_t>(blockIdx.x) * (heads + 2 * a.kv_heads) * HEAD;
    const int parts[3] = {head, heads + shared, heads + a.kv_heads + shared};
    // A thread has the same pairs of channels from here to the barrier.
    for (int c = 2 * threadIdx.x; c < PADDED_HEAD; c += 2 * THREADS) {
        float pairs[3][2] = {};
        for (int which = 0; which < 3 && c < HEAD; ++which) {
            const ACTIVATION *from = in + parts[which] * HEAD + c;
            pairs[which][0] = to_f32(from[0]), pairs[which][1] = to_f32(from[1]);
        }
        for (int i = 0; i < 2; ++i) q[c + i] = pairs[0][i], k[c + i] = pairs[1][i], v[c + i] = pairs[2][i];
    }
    if (a.qk_norm) layer_norm(q, a.qk_norm, smem), layer_norm(k, a.qk_norm + 2 * HEAD, smem);
    const float scale = rsqrtf(static_cast<float>(HEAD));
    for (int c = 2 * threadIdx.x; c < HEAD; c += 2 * THREADS) {
        if (a.rope) {
            const float *angle = a.rope + static_cast<size_t>(position) * HEAD + c; // cosine, sine
            rotate(q + c, angle), rotate(k + c, angle);
        }
        q[c] *= scale, q[c + 1] *= scale;
    }
    __syncthreads();
    if (writes) { // blocks that share a key write the same
        const size_t place = first + position;
        if (warp == 0) store_kv(k, a.keys + place * PADDED_HEAD, a.key_scales + place, lane);
        if (warp == 1) store_kv(v, a.values + place * PADDED_HEAD, a.value_scales + place, lane);
        __syncthreads();
    }
    if (!attends) return;

    constexpr bool scaled = sizeof(CACHED) == 1;
    const int group = threadIdx.x / GROUP, part = threadIdx.x % GROUP;
    const int count = position + 1; // positions to attend to
    const unsigned char *mask = a.prefix_mask ? a.prefix_mask + static_cast<size_t>(sequence) * a.prefix : nullptr;
    float largest = NEG_INF;
#pragma unroll 4
    for (int begin = 0; begin < count; begin += GROUPS) { // equally often on all lanes
        const int p = begin + group;
        float score = 0.0f;
        if (p < count && part < PARTS) {
            float key[PART];
            load(a.keys + (first + p) * PADDED_HEAD + part * PART, key);
            for (int i = 0; i < PART; ++i) score += q[part * PART + i] * key[i];
        }
        score = sum_of_lanes<GROUP>(score);
        if (p >= count || part != 0) continue;
        if (scaled) score *= a.key_scales[first + p];
        if (mask && p < a.prefix && !mask[p] && p != position) score = NEG_INF;
        scores[p] = score;
        largest = nan_max(largest, score);
    }
    largest = max_of_block<THREADS>(largest, smem); // also the barrier after which all scores are written
    float total = 0.0f;
    for (int p = threadIdx.x; p < count; p += THREADS) total += scores[p] = expf(scores[p] - largest);
    total = sum_of_block<THREADS>(total, smem);

    float sum[PART] = {};
#pragma unroll 4
    for (int p = group; p < count; p += GROUPS) {
        if (part >= PARTS) break;
        float value[PART];
        load(a.values + (first + p) * PADDED_HEAD + part * PART, value);
        const float weight = scaled ? scores[p] * a.value_scales[first + p] : scores[p];
        for (int i = 0; i < PART; ++i) sum[i] += weight * value[i];
    }
    for (int i = 0; i < PART; ++i) {
        for (int other = GROUP; other < WARP; other *= 2) sum[i] += __shfl_xor_sync(ALL, sum[i], other);
        if (lane < PARTS) sums[warp][lane * PART + i] = sum[i];
    }
    __syncthreads();
    ACTIVATION *out = a.output + (static_cast<size_t>(blockIdx.x) * heads + head) * HEAD;
    for (int c = threadIdx.x; c < HEAD; c += THREADS) {
        float y = 0.0f;
        for (int w = 0; w < WARPS; ++w) y += sums[w][c];
        store(y / total, out + c);
    }
}

// One new position per sequence.
extern "C" __global__ void __launch_bounds__(THREADS) write_and_attend(const Attention a) { attention<true, true>(a); }
// Several new positions per sequence: all are written first, then each attends to those before it
// and to itself.
extern "C" __global__ void __launch_bounds__(THREADS) write_only(const Attention a) { attention<true, false>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) attend_only(const Attention a) { attention<false, true>(a); }
