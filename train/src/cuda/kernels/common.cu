// What all kernels share: the type of a map's numbers, packs of eight channels, reductions over a block.
//
// Maps are N x H x W x C with C a multiple of PACK; a pixel is one of their N * H * W places. Matrices are rows x columns
// of float. A map has fewer than 2^32 packs. Every block has THREADS threads. No kernel uses atomics: equal inputs give equal bits. The same text is
// compiled by NVRTC and, for the tests, by a C++ compiler behind a header that plays a GPU.

#define THREADS 256
#define PACK 8
#define INFINITE __uint_as_float(0x7f800000u)

// Threads of a one-dimensional grid share `count` items.
#define EACH(i, count)                                                                                 \
    for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < (count);                     \
         i += (long long)gridDim.x * THREADS)

#ifdef MAPS_BF16
typedef unsigned short map_t;

static __device__ float widen(map_t v) { return __uint_as_float((unsigned)v << 16); }

// To the nearest, ties to even.
static __device__ map_t narrow(float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    map_t rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(v));
    return rounded;
#else
    unsigned bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (map_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}
#else
typedef float map_t;

static __device__ float widen(map_t v) { return v; }
static __device__ map_t narrow(float v) { return v; }
#endif

struct __align__(16) Pack {
    map_t v[PACK];
};

struct __align__(16) Floats {
    float v[PACK];
};

static __device__ Floats load(const map_t* from, long long pack) {
    Pack raw = ((const Pack*)from)[pack];
    Floats wide;
    for (int i = 0; i < PACK; ++i) wide.v[i] = widen(raw.v[i]);
    return wide;
}

static __device__ void store(map_t* to, long long pack, const Floats& wide) {
    Pack raw;
    for (int i = 0; i < PACK; ++i) raw.v[i] = narrow(wide.v[i]);
    ((Pack*)to)[pack] = raw;
}

static __device__ Floats channels_of(const float* table, int pack) { return ((const Floats*)table)[pack]; }

struct Sum {
    static __device__ float of(float a, float b) { return a + b; }
};
struct Least {
    static __device__ float of(float a, float b) { return b < a ? b : a; }
};
struct Greatest {
    static __device__ float of(float a, float b) { return b > a ? b : a; }
};

// Reduces one number per thread to one that every thread gets; `room` holds THREADS numbers.
template <class Reduction>
static __device__ float over_block(float value, float* room) {
    int t = threadIdx.x;
    room[t] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) room[t] = Reduction::of(room[t], room[t + half]);
        __syncthreads();
    }
    float result = room[0];
    __syncthreads();
    return result;
}

// Position of the largest of `count` numbers, the first of equals, for every thread.
static __device__ int argmax_over_block(const float* values, int count, float* room, int* places) {
    int t = threadIdx.x;
    float best = -INFINITE;
    int place = count;
    for (int k = t; k < count; k += THREADS) {
        if (place == count || values[k] > best) {
            best = values[k];
            place = k;
        }
    }
    room[t] = best;
    places[t] = place;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (t < half) {
            int other = places[t + half];
            bool better = other < count && (places[t] == count || room[t + half] > room[t] ||
                                            (room[t + half] == room[t] && other < places[t]));
            if (better) {
                room[t] = room[t + half];
                places[t] = other;
            }
        }
        __syncthreads();
    }
    int result = places[0];
    __syncthreads();
    return result;
}
