// Products of a few rows with a weight. They are memory-bound, so each weight is read once, and the
// operations around the product (RMS norm before; residual sum or SwiGLU after) are fused. A warp
// computes two outputs for all rows.
//
// Compiled for WEIGHT, the type of weights (bf16, or int8 with a scale per output), and ROWS.

struct Gemv {
    const WEIGHT *weight;  // (rows of the weight, inputs)
    const float *scale;    // one per row of the weight, int8 only
    const float *input;    // (ROWS, inputs)
    const float *gamma;    // (inputs), the norm's weight
    float *output;         // (ROWS, outputs)
    int inputs, outputs;   // multiples of CHUNK<WEIGHT> and of 2
    float eps;
};

enum class Epilogue {
    store,    // output = y
    add,      // output += y
    swiglu,   // output = silu(y of row o) · y of row o + outputs
};

template <bool normed, Epilogue epilogue>
__device__ void gemv(const Gemv &p) {
    constexpr int STEP = CHUNK<WEIGHT>;
    const int warp = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    const int first = epilogue == Epilogue::swiglu ? warp : 2 * warp;
    const int second = epilogue == Epilogue::swiglu ? warp + p.outputs : first + 1;
    if (first >= p.outputs) return;
    const WEIGHT *weights[2] = {p.weight + static_cast<size_t>(first) * p.inputs,
                                p.weight + static_cast<size_t>(second) * p.inputs};
    float sums[2][ROWS] = {}, squares[ROWS] = {};
#pragma unroll 2
    for (int i = lane * STEP; i < p.inputs; i += WARP * STEP) {
        float a[STEP], b[STEP];
        load(weights[0] + i, a);
        load(weights[1] + i, b);
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            const float4 *x = reinterpret_cast<const float4 *>(p.input + static_cast<size_t>(row) * p.inputs + i);
#pragma unroll
            for (int j = 0; j < STEP / 4; ++j) {
                float4 v = x[j];
                if (normed) {
                    const float4 g = reinterpret_cast<const float4 *>(p.gamma + i)[j];
                    squares[row] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
                    v.x *= g.x, v.y *= g.y, v.z *= g.z, v.w *= g.w;
                }
                sums[0][row] += a[4 * j] * v.x + a[4 * j + 1] * v.y + a[4 * j + 2] * v.z + a[4 * j + 3] * v.w;
                sums[1][row] += b[4 * j] * v.x + b[4 * j + 1] * v.y + b[4 * j + 2] * v.z + b[4 * j + 3] * v.w;
            }
        }
    }
    const float scales[2] = {p.scale ? p.scale[first] : 1.0f, p.scale ? p.scale[second] : 1.0f};
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        const float root = normed ? rsqrtf(sum_of_lanes(squares[row]) / p.inputs + p.eps) : 1.0f;
        const float y = sum_of_lanes(sums[0][row]) * root * scales[0];
        const float z = sum_of_lanes(sums[1][row]) * root * scales[1];
        if (lane != 0) continue;
        float *output = p.output + static_cast<size_t>(row) * p.outputs + first;
        if (epilogue == Epilogue::swiglu) {
            output[0] = silu(y) * z;
        } else if (epilogue == Epilogue::add) {
            output[0] += y;
            output[1] += z;
        } else {
            output[0] = y;
            output[1] = z;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) norm_gemv(const Gemv p) { gemv<true, Epilogue::store>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) gemv_add(const Gemv p) { gemv<false, Epilogue::add>(p); }
extern "C" __global__ void __launch_bounds__(THREADS) norm_gemv_swiglu(const Gemv p) { gemv<true, Epilogue::swiglu>(p); }
