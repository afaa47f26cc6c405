// C functions over streams and graphs of libtorch's CUDA half, for src/cuda_graph.rs.
//
// Compiled into a small library that is opened after libtorch_cuda.so, which has its undefined
// symbols; the program itself does not link CUDA. Every function returns false if libtorch throws,
// with the text in `message`.

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>
#include <exception>

namespace {

template <typename Work>
bool guarded(char *message, size_t size, Work work) {
    const char *text = "an exception of unknown type";
    try {
        work();
        return true;
    } catch (const std::exception &error) {
        std::strncpy(message, error.what(), size - 1);
    } catch (...) {
        std::strncpy(message, text, size - 1);
    }
    message[size - 1] = '\0';
    return false;
}

using at::cuda::CUDAGraph;

}  // namespace

extern "C" {

// Makes a stream of libtorch's pool this thread's current one: a graph cannot be captured on the
// default stream.
bool gen_stream_enter(int device, char *message, size_t size) {
    return guarded(message, size, [&] {
        c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, static_cast<c10::DeviceIndex>(device)));
    });
}

// Makes the default stream the current one again.
bool gen_stream_leave(int device, char *message, size_t size) {
    return guarded(message, size, [&] {
        c10::cuda::setCurrentCUDAStream(c10::cuda::getDefaultCUDAStream(static_cast<c10::DeviceIndex>(device)));
    });
}

// This thread's current stream.
bool gen_stream_current(int device, void **stream, char *message, size_t size) {
    return guarded(message, size, [&] {
        *stream = c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
    });
}

bool gen_graph_new(void **graph, char *message, size_t size) {
    return guarded(message, size, [&] { *graph = new CUDAGraph(); });
}

// Starts capturing the current stream's work, which does not run. Other threads may use CUDA
// meanwhile.
bool gen_graph_begin(void *graph, char *message, size_t size) {
    return guarded(message, size, [&] {
        static_cast<CUDAGraph *>(graph)->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    });
}

bool gen_graph_end(void *graph, char *message, size_t size) {
    return guarded(message, size, [&] { static_cast<CUDAGraph *>(graph)->capture_end(); });
}

bool gen_graph_replay(void *graph, char *message, size_t size) {
    return guarded(message, size, [&] { static_cast<CUDAGraph *>(graph)->replay(); });
}

bool gen_graph_delete(void *graph, char *message, size_t size) {
    return guarded(message, size, [&] { delete static_cast<CUDAGraph *>(graph); });
}
}
