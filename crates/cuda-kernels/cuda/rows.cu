// Operations between the products of many rows, which are libtorch's.

struct Norm {
    float *residual;    // (rows, width), the residual stream
    const bf16 *branch; // (rows, width), added to it first; null: none
    const float *gamma; // (width)
    bf16 *output;       // (rows, width)
    int width;
    float eps;
};

// RMS norm, one block per row.
extern "C" __global__ void __launch_bounds__(THREADS) add_and_norm(const Norm n) {
    __shared__ float smem[THREADS / WARP];
    float *x = n.residual + static_cast<size_t>(blockIdx.x) * n.width;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < n.width; i += THREADS) {
        float value = x[i];
        if (n.branch) x[i] = value += to_f32(n.branch[static_cast<size_t>(blockIdx.x) * n.width + i]);
        squares += value * value;
    }
    const float root = rsqrtf(sum_of_block<THREADS>(squares, smem) / n.width + n.eps);
    for (int i = threadIdx.x; i < n.width; i += THREADS) {
        n.output[static_cast<size_t>(blockIdx.x) * n.width + i] = to_bf16(x[i] * root * n.gamma[i]);
    }
}

struct Swiglu {
    const bf16 *gate_up; // (rows, 2, width)
    bf16 *output;     // (rows, width)
    int width;
};

// One block per row.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu(const Swiglu s) {
    const bf16 *gate = s.gate_up + static_cast<size_t>(blockIdx.x) * 2 * s.width;
    for (int i = threadIdx.x; i < s.width; i += THREADS) {
        const float y = silu(to_f32(gate[i])) * to_f32(gate[s.width + i]);
        s.output[static_cast<size_t>(blockIdx.x) * s.width + i] = to_bf16(y);
    }
}

struct Dequantize {
    const int8 *weight; // (rows, width)
    const float *scale; // (rows)
    bf16 *output;       // (rows, width)
    int width;
};

// One block per row.
extern "C" __global__ void __launch_bounds__(THREADS) dequantize_weight(const Dequantize w) {
    const size_t first = static_cast<size_t>(blockIdx.x) * w.width;
    for (int i = threadIdx.x; i < w.width; i += THREADS) {
        w.output[first + i] = to_bf16(w.weight[first + i] * w.scale[blockIdx.x]);
    }
}
