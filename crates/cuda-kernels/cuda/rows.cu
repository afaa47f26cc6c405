// What stands between the products of many rows, which are libtorch's.

struct Norm {
    float *stream;      // (rows, width), the residual stream
    const bf16 *branch; // (rows, width), added to it first; null: nothing is
    const float *gamma; // (width)
    bf16 *output;       // (rows, width)
    int width;
    float eps;
};

// RMS norm; a block works on one row.
extern "C" __global__ void __launch_bounds__(THREADS) add_and_norm(const Norm n) {
    __shared__ float room[THREADS / WARP];
    float *x = n.stream + static_cast<size_t>(blockIdx.x) * n.width;
    float squares = 0.0f;
    for (int i = threadIdx.x; i < n.width; i += THREADS) {
        float value = x[i];
        if (n.branch) x[i] = value += widen(n.branch[static_cast<size_t>(blockIdx.x) * n.width + i]);
        squares += value * value;
    }
    const float root = rsqrtf(sum_of_block<THREADS>(squares, room) / n.width + n.eps);
    for (int i = threadIdx.x; i < n.width; i += THREADS) {
        n.output[static_cast<size_t>(blockIdx.x) * n.width + i] = narrow(x[i] * root * n.gamma[i]);
    }
}

struct Swiglu {
    const bf16 *both; // (rows, 2, width)
    bf16 *output;     // (rows, width)
    int width;
};

// A block works on one row.
extern "C" __global__ void __launch_bounds__(THREADS) swiglu(const Swiglu s) {
    const bf16 *gate = s.both + static_cast<size_t>(blockIdx.x) * 2 * s.width;
    for (int i = threadIdx.x; i < s.width; i += THREADS) {
        const float y = silu(widen(gate[i])) * widen(gate[s.width + i]);
        s.output[static_cast<size_t>(blockIdx.x) * s.width + i] = narrow(y);
    }
}

struct Widen {
    const int8 *weight; // (rows, width)
    const float *scale; // (rows)
    bf16 *output;       // (rows, width)
    int width;
};

// A block works on one row.
extern "C" __global__ void __launch_bounds__(THREADS) widen_weight(const Widen w) {
    const size_t first = static_cast<size_t>(blockIdx.x) * w.width;
    for (int i = threadIdx.x; i < w.width; i += THREADS) {
        w.output[first + i] = narrow(w.weight[first + i] * w.scale[blockIdx.x]);
    }
}
