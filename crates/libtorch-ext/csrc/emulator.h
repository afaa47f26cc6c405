// Emulation of CUDA on a CPU, one block at a time, sufficient to run kernels in tests. Each thread
// of a block is a context that yields to the others at barriers and shuffles. Prepended to a
// kernel's source.

#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct float4 {
    float x, y, z, w;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr size_t STACK = 64 << 10;

struct Thread {
    ucontext_t context; // start of the thread
    jmp_buf place;      // where it resumes; takes a tenth of the time of a context, since it does not save signals
    bool begun = false;
    std::unique_ptr<char[]> stack{new char[STACK]};
    bool done = false;
    long block_barriers = 0, warp_barriers = 0; // barriers reached
    float offered[2];                           // values shuffled, alternating: no thread is two shuffles ahead
};

static std::vector<Thread> threads;
static ucontext_t scheduler;
static jmp_buf scheduler_place;
static long steps; // barriers reached and threads ended, of all threads

static Thread &self() { return threads[threadIdx.x]; }

static void yield() {
    if (!_setjmp(self().place)) _longjmp(scheduler_place, 1);
}

static void resume(Thread &thread) {
    if (_setjmp(scheduler_place)) return;
    if (thread.begun) _longjmp(thread.place, 1);
    thread.begun = true;
    swapcontext(&scheduler, &thread.context);
}

// Waits until all threads from `first` to `last` that are not done have reached this barrier.
static void wait(long Thread::*barriers, size_t first, size_t last) {
    const long mine = ++(self().*barriers);
    ++steps;
    const auto behind = [&] {
        for (size_t i = first; i < last; ++i)
            if (!threads[i].done && threads[i].*barriers < mine) return true;
        return false;
    };
    while (behind()) yield();
}

static void wait_for_warp() {
    const size_t first = threadIdx.x / 32 * 32;
    wait(&Thread::warp_barriers, first, std::min<size_t>(first + 32, threads.size()));
}

struct Arguments {
    char bytes[256];
};
using Kernel = void (*)(Arguments);

static Kernel kernel;
static Arguments arguments;

// Threads are reused for the next block.
static void run_thread() {
    for (;;) {
        kernel(arguments);
        self().done = true;
        ++steps;
        yield();
    }
}

static void make_threads(unsigned count) {
    if (threads.size() == count) return;
    threads = std::vector<Thread>(count);
    for (Thread &thread : threads) {
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get();
        thread.context.uc_stack.ss_size = STACK;
        makecontext(&thread.context, run_thread, 0);
    }
}

// False if threads deadlock.
static bool run_block(unsigned count) {
    make_threads(count);
    for (Thread &thread : threads) thread.done = false, thread.block_barriers = thread.warp_barriers = 0;
    for (bool live = true; live;) {
        live = false;
        const long before = steps;
        for (unsigned i = 0; i < count; ++i) {
            if (threads[i].done) continue;
            live = true;
            threadIdx.x = i;
            resume(threads[i]);
        }
        if (live && steps == before) return false;
    }
    return true;
}

}  // namespace emulator

// Structures of more than 16 bytes, as every kernel's argument is, are passed in memory, whatever
// their size.
extern "C" bool gen_emulate(void *kernel, const void *arguments, size_t size, unsigned x, unsigned y, unsigned count) {
    if (size > sizeof(emulator::Arguments)) return false;
    memcpy(emulator::arguments.bytes, arguments, size);
    emulator::kernel = reinterpret_cast<emulator::Kernel>(kernel);
    gridDim.x = x, gridDim.y = y, blockDim.x = count;
    for (blockIdx.y = 0; blockIdx.y < y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < x; ++blockIdx.x)
            if (!emulator::run_block(count)) return false;
    return true;
}

static void __syncthreads() { emulator::wait(&emulator::Thread::block_barriers, 0, emulator::threads.size()); }

static float __shfl_xor_sync(unsigned, float value, int other) {
    const long turn = emulator::self().warp_barriers % 2;
    emulator::self().offered[turn] = value;
    emulator::wait_for_warp();
    return emulator::threads[threadIdx.x ^ other].offered[turn];
}

static float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <typename T>
static void atomicAdd(T *place, T value) {
    *place += value;
}

static void atomicMin(int *place, int value) { *place = std::min(*place, value); }

static float rsqrtf(float x) { return 1.0f / sqrtf(x); }
