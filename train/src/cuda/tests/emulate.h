// Plays a GPU for the kernels' text: the threads of a block are fibers that run one after the other and change at
// __syncthreads, forwards or backwards, so that a missing barrier shows as a difference between the two orders.

#include <cmath>
#include <csetjmp>
#include <cstring>
#include <type_traits>
#include <ucontext.h>
#include <utility>

struct Index {
    unsigned x, y;
};
static Index threadIdx, blockIdx, gridDim;

#define __global__
#define __device__ inline
#define __shared__ static
#define __align__(n) alignas(n)

static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

namespace emulator {
const int FIBERS = 256;
static char stacks[FIBERS][1 << 15];
static jmp_buf scheduler, fibers[FIBERS];
static bool begun[FIBERS], done[FIBERS];
static int current;
static void (*body)(void**);
static void** arguments;

static inline void change() {
    if (!_setjmp(fibers[current])) _longjmp(scheduler, 1);
}

// A fiber is begun as a context, once, and then changed to by jumps, which need no system call.
static void enter() {
    for (;;) {
        body(arguments);
        done[current] = true;
        change();
    }
}

static void run(int fiber) {
    current = threadIdx.x = fiber;
    if (_setjmp(scheduler)) return;
    if (begun[fiber]) _longjmp(fibers[fiber], 1);
    begun[fiber] = true;
    ucontext_t fresh;
    getcontext(&fresh);
    fresh.uc_stack.ss_sp = stacks[fiber];
    fresh.uc_stack.ss_size = sizeof stacks[fiber];
    fresh.uc_link = nullptr;
    makecontext(&fresh, enter, 0);
    setcontext(&fresh);
}

static void block(bool backwards) {
    for (int t = 0; t < FIBERS; ++t) done[t] = false;
    for (int left = FIBERS; left > 0;) {
        for (int k = 0; k < FIBERS; ++k) {
            int fiber = backwards ? FIBERS - 1 - k : k;
            if (done[fiber]) continue;
            run(fiber);
            left -= done[fiber];
        }
    }
}

template <class T>
constexpr char kind() {
    return std::is_pointer<T>::value ? 'p' : std::is_same<T, int>::value ? 'i' : std::is_same<T, float>::value ? 'f' : 'l';
}

template <class F>
struct Kernel;
template <class... A>
struct Kernel<void (*)(A...)> {
    static bool takes(const char* kinds) {
        const char mine[] = {kind<A>()..., 0};
        return strcmp(mine, kinds) == 0;
    }
    template <void (*F)(A...), size_t... I>
    static void unpack(void** a, std::index_sequence<I...>) {
        F(*(std::remove_const_t<A>*)a[I]...);
    }
    template <void (*F)(A...)>
    static void call(void** a) {
        unpack<F>(a, std::index_sequence_for<A...>());
    }
};

struct Entry {
    const char* name;
    bool (*takes)(const char*);
    void (*call)(void**);
};
} // namespace emulator

static inline void __syncthreads() { emulator::change(); }

#define KERNEL(name) {#name, emulator::Kernel<decltype(&name)>::takes, emulator::Kernel<decltype(&name)>::call<&name>},
