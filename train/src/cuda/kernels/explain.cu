// Explanations of a batch: class-activation maps, masks, the label-consistency test and what follows from it.

// Class of each row: the largest logit, the first of equals. One block per row.
extern "C" __global__ void predict(const float* logits, int classes, int* predicted) {
    __shared__ float room[THREADS];
    __shared__ int places[THREADS];
    int best = argmax_over_block(logits + (long long)blockIdx.x * classes, classes, room, places);
    if (threadIdx.x == 0) predicted[blockIdx.x] = best;
}

// map[picture][pixel] = sum over channels of weight[class of the picture] times feature, negative evidence cut off with
// `relu`. One block per picture, 32 threads per pixel.
extern "C" __global__ void activation_map(const map_t* features, const float* weight, const int* target, int area,
                                          int channels, int relu, float* map) {
    __shared__ float room[THREADS];
    int t = threadIdx.x, lane = t % 32, packs = channels / PACK;
    const float* head = weight + (long long)target[blockIdx.x] * channels;
    for (int base = 0; base < area; base += THREADS / 32) {
        int pixel = base + t / 32;
        float sum = 0.0f;
        for (int pack = lane; pack < packs && pixel < area; pack += 32) {
            Floats v = load(features, ((long long)blockIdx.x * area + pixel) * packs + pack);
            Floats w = channels_of(head, pack);
            for (int i = 0; i < PACK; ++i) sum += w.v[i] * v.v[i];
        }
        room[t] = sum;
        __syncthreads();
        for (int half = 16; half > 0; half /= 2) {
            if (lane < half) room[t] += room[t + half];
            __syncthreads();
        }
        if (lane == 0 && pixel < area) map[blockIdx.x * area + pixel] = relu && room[t] < 0.0f ? 0.0f : room[t];
        __syncthreads();
    }
}

// Bilinear resizing with half-pixel centres and clamped edges: the two cells an output cell lies between.
static __device__ Tap between(int o, int input, int output) {
    double position = (o + 0.5) * ((double)input / output) - 0.5;
    position = position > 0.0 ? position : 0.0;
    Tap tap;
    tap.first = (int)position < input - 1 ? (int)position : input - 1;
    tap.second = tap.first + 1 < input - 1 ? tap.first + 1 : input - 1;
    tap.b = (float)(position - tap.first);
    tap.a = 1.0f - tap.b;
    return tap;
}

static __device__ float upsampled(const float* map, int width, const Tap& x, const Tap& y) {
    float top = map[y.first * width + x.first] * x.a + map[y.first * width + x.second] * x.b;
    float bottom = map[y.second * width + x.first] * x.a + map[y.second * width + x.second] * x.b;
    return top * y.a + bottom * y.b;
}

// Maps of height x width to side x side, min-max normalised to 0..1. One block per picture.
extern "C" __global__ void normalise_maps(const float* maps, int height, int width, int side, float* out) {
    __shared__ Tap across[MAX_SIDE], down[MAX_SIDE];
    __shared__ float room[THREADS];
    const float* map = maps + (long long)blockIdx.x * height * width;
    long long base = (long long)blockIdx.x * side * side;
    int pixels = side * side;
    for (int o = threadIdx.x; o < side; o += THREADS) {
        across[o] = between(o, width, side);
        down[o] = between(o, height, side);
    }
    __syncthreads();
    float low = INFINITE, range = 0.0f;
    for (int p = threadIdx.x; p < pixels; p += THREADS) {
        low = Least::of(low, upsampled(map, width, across[p % side], down[p / side]));
    }
    low = over_block<Least>(low, room);
    for (int p = threadIdx.x; p < pixels; p += THREADS) {
        range = Greatest::of(range, upsampled(map, width, across[p % side], down[p / side]) - low);
    }
    range = over_block<Greatest>(range, room) + 1e-8f;
    for (int p = threadIdx.x; p < pixels; p += THREADS) {
        out[base + p] = (upsampled(map, width, across[p % side], down[p / side]) - low) / range;
    }
}

static __device__ void put(const map_t* pictures, bool keep, float r, float g, float b, long long at, map_t* masked) {
    Floats v = {};
    if (keep) {
        v = load(pictures, at);
    } else {
        v.v[0] = r;
        v.v[1] = g;
        v.v[2] = b;
    }
    store(masked, at, v);
}

// Keeps the pixels whose value is above the limit; the others get the fill.
extern "C" __global__ void mask_above(const float* values, const map_t* pictures, float limit, float r, float g, float b,
                                      long long pixels, map_t* masked) {
    EACH(at, pixels) put(pictures, values[at] > limit, r, g, b, at, masked);
}

// Keeps the `count` largest pixels, of equal ones the first. One block per picture.
extern "C" __global__ void mask_top(const float* values, const map_t* pictures, int count, float r, float g, float b,
                                    int pixels, map_t* masked) {
    long long base = (long long)blockIdx.x * pixels;
    for (int p = threadIdx.x; p < pixels; p += THREADS) {
        float mine = values[base + p];
        int before = 0;
        for (int q = 0; q < pixels; ++q) {
            float other = values[base + q];
            before += other > mine || (other == mine && q < p) ? 1 : 0;
        }
        put(pictures, before < count, r, g, b, base + p, masked);
    }
}

// View 1: the masked picture, mirrored where asked, where its prediction is the label; else what is there stays.
extern "C" __global__ void choose_view(const map_t* masked, const int* predicted, const int* labels,
                                       const unsigned char* mirror, int side, long long pixels, map_t* view) {
    EACH(at, pixels) {
        long long row = at / side;
        int picture = (int)(row / side), x = (int)(at % side);
        if (predicted[picture] != labels[picture]) continue;
        store(view, at, load(masked, row * side + (mirror && mirror[picture] ? side - 1 - x : x)));
    }
}

// How often each of `rows` rows counts: the `real` ones once, the masked pictures after them twice where they fail the
// test (one copy per view) and else not at all; total[0] is their sum. One block.
extern "C" __global__ void row_weights(const int* predicted, const int* labels, int real, int rows,
                                       float* weights, float* total) {
    __shared__ float room[THREADS];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < rows; i += THREADS) {
        int picture = i - real;
        float weight = i < real ? 1.0f : (predicted[picture] == labels[picture] ? 0.0f : 2.0f);
        weights[i] = weight;
        sum += weight;
    }
    sum = over_block<Sum>(sum, room);
    if (threadIdx.x == 0) total[0] = sum;
}
