// Batch norm with a residual and an activation (`low` to `high`: a ReLU, a ReLU6 or nothing): forward in two passes over the map, backward in two.
//
// Sums over all pixels are made in two stages, without atomics: each block sums a chunk of pixels for a tile of channels,
// then one block per eight channels adds the chunks in double. `weights`, where given, has one number per picture: how
// often it counts. 2 stands for two equal copies, 0 for a row that is not there.

// Threads of a block as tile (packs of channels side by side) times lanes (pixels at a time).
struct Tiling {
    int tile, lanes, pack, lane;
    bool active;
};

static __device__ Tiling tiling(int channels) {
    int packs = channels / PACK;
    Tiling t;
    t.tile = packs < 32 ? packs : 32;
    t.lanes = THREADS / t.tile;
    t.lane = threadIdx.x / t.tile;
    t.pack = blockIdx.y * t.tile + threadIdx.x % t.tile;
    t.active = t.lane < t.lanes && t.pack < packs;
    return t;
}

// Adds the lanes' sums and writes them: sums[chunk][2][channels].
static __device__ void write_sums(const Tiling& t, const Floats& first, const Floats& second, int channels, float* sums) {
    __shared__ float room[2 * PACK * THREADS];
    int me = threadIdx.x;
    for (int i = 0; i < PACK; ++i) {
        room[i * THREADS + me] = first.v[i];
        room[(PACK + i) * THREADS + me] = second.v[i];
    }
    __syncthreads();
    for (int n = t.lanes; n > 1;) {
        int half = (n + 1) / 2;
        if (t.lane + half < n) {
            for (int i = 0; i < 2 * PACK; ++i) room[i * THREADS + me] += room[i * THREADS + me + half * t.tile];
        }
        n = half;
        __syncthreads();
    }
    if (t.active && t.lane == 0) {
        for (int i = 0; i < PACK; ++i) {
            int c = t.pack * PACK + i;
            sums[(2LL * blockIdx.x) * channels + c] = room[i * THREADS + me];
            sums[(2LL * blockIdx.x + 1) * channels + c] = room[(PACK + i) * THREADS + me];
        }
    }
}

// Of x: sums of the deviations from the first pixel, and of their squares. Chunks of `chunk` pixels.
extern "C" __global__ void norm_sums(const map_t* x, const float* weights, int area, int pixels, int channels, int chunk,
                                     float* sums) {
    Tiling t = tiling(channels);
    Floats mean = {}, square = {};
    if (t.active) {
        int packs = channels / PACK;
        Floats pivot = load(x, t.pack);
        int begin = (int)blockIdx.x * chunk, end = begin + chunk < pixels ? begin + chunk : pixels;
#pragma unroll 4
        for (int pixel = begin + t.lane; pixel < end; pixel += t.lanes) {
            float weight = weights ? weights[pixel / area] : 1.0f;
            Floats v = load(x, (long long)pixel * packs + t.pack);
            for (int i = 0; i < PACK; ++i) {
                float deviation = v.v[i] - pivot.v[i];
                mean.v[i] += weight * deviation;
                square.v[i] += weight * deviation * deviation;
            }
        }
    }
    write_sums(t, mean, square, channels, sums);
}

// Adds the chunks for the eight channels of this block; true for the eight threads that hold a result.
static __device__ bool gather(const float* sums, int chunks, int channels, double* first, double* second) {
    __shared__ double room[2][THREADS];
    int t = threadIdx.x, c = blockIdx.x * PACK + t % PACK;
    double a = 0.0, b = 0.0;
    for (int chunk = t / PACK; chunk < chunks; chunk += THREADS / PACK) {
        a += sums[(2LL * chunk) * channels + c];
        b += sums[(2LL * chunk + 1) * channels + c];
    }
    room[0][t] = a;
    room[1][t] = b;
    __syncthreads();
    for (int half = THREADS / 2; half >= PACK; half /= 2) {
        if (t < half) {
            room[0][t] += room[0][t + half];
            room[1][t] += room[1][t + half];
        }
        __syncthreads();
    }
    if (t >= PACK) return false;
    *first = room[0][t];
    *second = room[1][t];
    return true;
}

// Statistics of the batch: statistics[4][channels] = mean, 1 / sqrt(variance + epsilon), and the factor and summand that
// normalise and scale at once. Moves the running statistics where given. Pixels are `rows[0] * area` where rows is given.
extern "C" __global__ void norm_finish(const float* sums, int chunks, int channels, const map_t* x, int pixels,
                                       const float* rows, int area, const float* gamma, const float* beta,
                                       float epsilon, float momentum, float* running_mean, float* running_variance,
                                       float* statistics) {
    double first, second;
    if (!gather(sums, chunks, channels, &first, &second)) return;
    int c = blockIdx.x * PACK + threadIdx.x;
    double n = rows ? (double)rows[0] * area : (double)pixels;
    double offset = first / n;
    double variance = second / n - offset * offset;
    if (variance < 0.0) variance = 0.0;
    float mean = (float)(widen(x[c]) + offset);
    float inverse = (float)(1.0 / sqrt(variance + epsilon));
    statistics[c] = mean;
    statistics[channels + c] = inverse;
    statistics[2 * channels + c] = gamma[c] * inverse;
    statistics[3 * channels + c] = beta[c] - mean * (gamma[c] * inverse);
    if (running_mean) {
        float unbiased = (float)(n / ((n < 2.0 ? 2.0 : n) - 1.0));
        running_mean[c] += momentum * (mean - running_mean[c]);
        running_variance[c] += momentum * ((float)variance * unbiased - running_variance[c]);
    }
}

// Factor and summand from running statistics, for all norms of a network at once.
extern "C" __global__ void norm_fold(const float* mean, const float* variance, const float* gamma, const float* beta,
                                     float epsilon, long long count, float* scale, float* shift) {
    EACH(i, count) {
        float factor = (float)(gamma[i] / sqrt((double)variance[i] + epsilon));
        scale[i] = factor;
        shift[i] = beta[i] - mean[i] * factor;
    }
}

// y = x * scale + shift + residual?, between low and high; y may be x.
extern "C" __global__ void norm_apply(const map_t* x, const map_t* residual, const float* scale, const float* shift,
                                      float low, float high, long long packs, int channels, map_t* y) {
    unsigned per_pixel = channels / PACK;
    EACH(at, packs) {
        int pack = (unsigned)at % per_pixel;
        Floats v = load(x, at), k = channels_of(scale, pack), s = channels_of(shift, pack), r = {};
        if (residual) r = load(residual, at);
        for (int i = 0; i < PACK; ++i) v.v[i] = between_limits(v.v[i] * k.v[i] + s.v[i] + r.v[i], low, high);
        store(y, at, v);
    }
}

// The gradient before the activation: (first + second?) where the gate, the forward pass's output, is inside 0 to high.
static __device__ Floats gated(const map_t* first, const map_t* second, const map_t* gate, float high, long long at) {
    Floats d = load(first, at);
    if (second) {
        Floats more = load(second, at);
        for (int i = 0; i < PACK; ++i) d.v[i] += more.v[i];
    }
    if (gate) {
        Floats y = load(gate, at);
        for (int i = 0; i < PACK; ++i) d.v[i] = y.v[i] > 0.0f && y.v[i] < high ? d.v[i] : 0.0f;
    }
    return d;
}

// Sums of the gradient and of gradient times the deviation of x from its mean.
extern "C" __global__ void norm_gradient_sums(const map_t* first, const map_t* second, const map_t* gate,
                                              float high, const map_t* x, const float* statistics, int pixels, int channels,
                                              int chunk, float* sums) {
    Tiling t = tiling(channels);
    Floats plain = {}, slant = {};
    if (t.active) {
        int packs = channels / PACK;
        Floats mean = channels_of(statistics, t.pack);
        int begin = (int)blockIdx.x * chunk, end = begin + chunk < pixels ? begin + chunk : pixels;
#pragma unroll 4
        for (int pixel = begin + t.lane; pixel < end; pixel += t.lanes) {
            long long at = (long long)pixel * packs + t.pack;
            Floats d = gated(first, second, gate, high, at), v = load(x, at);
            for (int i = 0; i < PACK; ++i) {
                plain.v[i] += d.v[i];
                slant.v[i] += d.v[i] * (v.v[i] - mean.v[i]);
            }
        }
    }
    write_sums(t, plain, slant, channels, sums);
}

// Gradients of gamma and beta, and coefficients[3][channels] of the input's gradient: factor of the gradient, slope by x,
// constant.
extern "C" __global__ void norm_gradient_finish(const float* sums, int chunks, int channels, int pixels,
                                                const float* rows, int area, const float* gamma,
                                                const float* statistics, float* gamma_gradient, float* beta_gradient,
                                                float* coefficients) {
    double plain, slant;
    if (!gather(sums, chunks, channels, &plain, &slant)) return;
    int c = blockIdx.x * PACK + threadIdx.x;
    double n = rows ? (double)rows[0] * area : (double)pixels;
    double mean = statistics[c], inverse = statistics[channels + c];
    slant *= inverse;
    double k = gamma[c] * inverse, slope = k * slant * inverse / n;
    gamma_gradient[c] = (float)slant;
    beta_gradient[c] = (float)plain;
    coefficients[c] = (float)k;
    coefficients[channels + c] = (float)slope;
    coefficients[2 * channels + c] = (float)(mean * slope - k * plain / n);
}

// dx = factor * d + weight * (constant - slope * x), with d the gated gradient, which goes to the residual too. Without x,
// statistics are no function of the map: dx = factor * d.
extern "C" __global__ void norm_gradient_apply(const map_t* first, const map_t* second, const map_t* gate,
                                               float high, const map_t* x, const float* coefficients, const float* weights,
                                               int area, long long packs, int channels, map_t* dx, map_t* dresidual) {
    unsigned per_pixel = channels / PACK;
    EACH(at, packs) {
        int pack = (unsigned)at % per_pixel;
        float weight = weights ? weights[(unsigned)at / per_pixel / area] : 1.0f;
        Floats d = gated(first, second, gate, high, at), k = channels_of(coefficients, pack), to;
        if (dresidual) store(dresidual, at, d);
        if (x) {
            Floats v = load(x, at), slope = channels_of(coefficients + channels, pack);
            Floats constant = channels_of(coefficients + 2 * channels, pack);
            for (int i = 0; i < PACK; ++i) to.v[i] = k.v[i] * d.v[i] + weight * (constant.v[i] - slope.v[i] * v.v[i]);
        } else {
            for (int i = 0; i < PACK; ++i) to.v[i] = k.v[i] * d.v[i];
        }
        store(dx, at, to);
    }
}
