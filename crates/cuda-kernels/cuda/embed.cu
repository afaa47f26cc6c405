// Embedding of codes, plus learned positions if there are any. One block per code.
//
// Compiled for TABLE, the type of both tables.

struct Embed {
    const TABLE *embedding;    // (codes, width)
    const TABLE *positions;    // (positions, width); null: none
    const long long *codes;    // (sequences, count)
    const long long *position; // of the first code, of all sequences or of each
    float *output;             // (sequences, count, width)
    int each;                  // 1 where each sequence has its own position
    int width, count;
    int before; // position of the first row of `positions`
};

extern "C" __global__ void __launch_bounds__(THREADS) embed(const Embed e) {
    const TABLE *embedding = e.embedding + static_cast<size_t>(e.codes[blockIdx.x]) * e.width;
    const int row = static_cast<int>(e.position[blockIdx.x / e.count * e.each]) + blockIdx.x % e.count - e.before;
    const TABLE *positions = e.positions ? e.positions + static_cast<size_t>(row) * e.width : nullptr;
    for (int i = threadIdx.x; i < e.width; i += THREADS) {
        const float value = to_f32(embedding[i]);
        e.output[static_cast<size_t>(blockIdx.x) * e.width + i] = positions ? value + to_f32(positions[i]) : value;
    }
}
