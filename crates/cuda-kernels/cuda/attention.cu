// Attention of new positions over the cache, with their rotary positions and the writing of their keys and values. A
// block works on one head of one new position.
//
// Compiled for HEAD, the width of a head; STORED, that in the cache, whose rest is zero; CACHED, the type of keys and
// values (bf16, or int8 with a scale a position and head); ACTIVATION, that of what goes in and out; LENGTH of the cache.

constexpr int WARPS = THREADS / WARP;
constexpr int PART = CHUNK<CACHED>, PARTS = STORED / PART; // a position's row of a head, as threads read it
static_assert(STORED % PART == 0 && STORED >= HEAD && PARTS <= WARP && HEAD % 2 == 0, "heads of that width");

__device__ constexpr int power_of_two(int n) { return n <= 1 ? 1 : 2 * power_of_two((n + 1) / 2); }
constexpr int GROUP = power_of_two(PARTS);  // lanes that read one position together
constexpr int GROUPS = THREADS / GROUP;     // positions that the block reads at a time

struct Attention {
    const ACTIVATION *qkv;          // (sequences, count, heads + 2 kv_heads, HEAD): queries, keys, values
    ACTIVATION *output;             // (sequences, count, heads, HEAD)
    CACHED *keys, *values;          // (sequences, kv_heads, LENGTH, STORED)
    float *key_scales, *value_scales; // (sequences, kv_heads, LENGTH), of int8 alone
    const float *rope;              // (positions, HEAD / 2, 2): cosine and sine; null where nothing turns
    const unsigned char *seen;      // (sequences, prefix): whether a position of the prefix is; null: all are
    const long long *position;      // of the first new position
    int count;                      // new positions of a sequence
    int prefix;
    int kv_heads;                   // heads of keys and values, each shared by neighbouring heads of queries
};

// One head's new key or value, by one warp.
__device__ void keep(const float *numbers, bf16 *to, float *, int lane) {
    for (int c = lane; c < STORED; c += WARP) to[c] = narrow(numbers[c]);
}

__device__ void keep(const float *numbers, int8 *to, float *scale, int lane) {
    float largest = 0.0f;
    for (int c = lane; c < STORED; c += WARP) largest = larger(largest, fabsf(numbers[c]));
    largest = max_of_lanes(largest);
    const bool finite = largest < -NOTHING; // else the scale makes NaN of all
    const float steps = largest > 0.0f && finite ? 127.0f / largest : 0.0f;
    for (int c = lane; c < STORED; c += WARP) to[c] = finite ? static_cast<int8>(rintf(numbers[c] * steps)) : 0;
    if (lane == 0) *scale = finite ? largest / 127.0f : __uint_as_float(0x7fc00000u);
}

template <bool writes, bool attends>
__device__ void attention(const Attention &a) {
    __shared__ float q[STORED], k[STORED], v[STORED], scores[LENGTH], sums[WARPS][STORED], room[WARPS];
    const int head = blockIdx.y, heads = gridDim.y, shared = head / (heads / a.kv_heads);
    const int sequence = blockIdx.x / a.count;
    const int position = static_cast<int>(*a.position) + blockIdx.x % a.count;
    const size_t first = (static_cast<size_t>(sequence) * a.kv_heads + shared) * LENGTH; // of this sequence and head
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

    const ACTIVATION *in = a.qkv + static_cast<size_t>(blockIdx.x) * (heads + 2 * a.kv_heads) * HEAD;
    const int parts[3] = {head, heads + shared, heads + a.kv_heads + shared};
    for (int c = 2 * threadIdx.x; c < STORED; c += 2 * THREADS) {
        float pairs[3][2] = {};
        for (int which = 0; which < 3 && c < HEAD; ++which) {
            const ACTIVATION *from = in + parts[which] * HEAD + c;
            pairs[which][0] = number(from[0]), pairs[which][1] = number(from[1]);
        }
        if (a.rope && c < HEAD) {
            const float *turn = a.rope + static_cast<size_t>(position) * HEAD + c;
            for (int which = 0; which < 2; ++which) {
                const float x = pairs[which][0], y = pairs[which][1];
                pairs[which][0] = x * turn[0] - y * turn[1];
                pairs[which][1] = x * turn[1] + y * turn[0];
            }
        }
        const float scale = rsqrtf(static_cast<float>(HEAD));
        for (int i = 0; i < 2; ++i) q[c + i] = pairs[0][i] * scale, k[c + i] = pairs[1][i], v[c + i] = pairs[2][i];
    }
    __syncthreads();
    if (writes) { // blocks that share a key write the same
        const size_t place = first + position;
        if (warp == 0) keep(k, a.keys + place * STORED, a.key_scales + place, lane);
        if (warp == 1) keep(v, a.values + place * STORED, a.value_scales + place, lane);
        __syncthreads();
    }
    if (!attends) return;

    constexpr bool scaled = sizeof(CACHED) == 1;
    const int group = threadIdx.x / GROUP, part = threadIdx.x % GROUP;
    const int count = position + 1; // positions to see
    const unsigned char *seen = a.seen ? a.seen + static_cast<size_t>(sequence) * a.prefix : nullptr;
    float largest = NOTHING;
#pragma unroll 4
    for (int begin = 0; begin < count; begin += GROUPS) { // of equal length for all lanes
        const int p = begin + group;
        float score = 0.0f;
        if (p < count && part < PARTS) {
            float key[PART];
            load(a.keys + (first + p) * STORED + part * PART, key);
            for (int i = 0; i < PART; ++i) score += q[part * PART + i] * key[i];
        }
        score = sum_of_lanes<GROUP>(score);
        if (p >= count || part != 0) continue;
        if (scaled) score *= a.key_scales[first + p];
        if (seen && p < a.prefix && !seen[p] && p != position) score = NOTHING;
        scores[p] = score;
        largest = larger(largest, score);
    }
    largest = max_of_block<THREADS>(largest, room); // and all scores are there
    float total = 0.0f;
    for (int p = threadIdx.x; p < count; p += THREADS) total += scores[p] = expf(scores[p] - largest);
    total = sum_of_block<THREADS>(total, room);

    float sum[PART] = {};
#pragma unroll 4
    for (int p = group; p < count; p += GROUPS) {
        if (part >= PARTS) break;
        float value[PART];
        load(a.values + (first + p) * STORED + part * PART, value);
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
        put(out + c, y / total);
    }
}

// One new position of each sequence.
extern "C" __global__ void __launch_bounds__(THREADS) write_and_attend(const Attention a) { attention<true, true>(a); }
// Several: first all are written, then each attends to those before it and to itself.
extern "C" __global__ void __launch_bounds__(THREADS) write_only(const Attention a) { attention<true, false>(a); }
extern "C" __global__ void __launch_bounds__(THREADS) attend_only(const Attention a) { attention<false, true>(a); }
