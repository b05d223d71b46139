// Element by element: sums and ReLUs that no norm takes along, the linear layers' biases, and the optimizer.

// y = relu?(a + b?); y may be a or b.
extern "C" __global__ void add(const map_t* a, const map_t* b, int relu, long long packs, map_t* y) {
    EACH(at, packs) {
        Floats v = load(a, at);
        if (b) {
            Floats more = load(b, at);
            for (int i = 0; i < PACK; ++i) v.v[i] += more.v[i];
        }
        for (int i = 0; i < PACK; ++i) v.v[i] = relu && v.v[i] < 0.0f ? 0.0f : v.v[i];
        store(y, at, v);
    }
}

// The gradient before a ReLU whose output was y.
extern "C" __global__ void gate(const map_t* g, const map_t* y, long long packs, map_t* dx) {
    EACH(at, packs) store(dx, at, gated(g, nullptr, y, at));
}

// y += bias by rows.
extern "C" __global__ void bias(float* y, const float* bias, long long count, int columns) {
    EACH(i, count) y[i] += bias[i % columns];
}

extern "C" __global__ void relu_matrix(const float* x, long long count, float* y) {
    EACH(i, count) y[i] = x[i] < 0.0f ? 0.0f : x[i];
}

// The gradient before a ReLU of a matrix, in place.
extern "C" __global__ void gate_matrix(float* g, const float* y, long long count) {
    EACH(i, count) g[i] = y[i] > 0.0f ? g[i] : 0.0f;
}

// Sums of the columns: 32 columns a block, eight lanes of rows.
extern "C" __global__ void column_sums(const float* x, int rows, int columns, float* sums) {
    __shared__ float room[THREADS];
    int t = threadIdx.x, column = blockIdx.x * 32 + t % 32, lane = t / 32;
    float sum = 0.0f;
    if (column < columns) {
        for (int row = lane; row < rows; row += THREADS / 32) sum += x[(long long)row * columns + column];
    }
    room[t] = sum;
    __syncthreads();
    if (lane == 0 && column < columns) {
        for (int other = 1; other < THREADS / 32; ++other) sum += room[other * 32 + t];
        sums[column] = sum;
    }
}

// SGD as PyTorch defines it: g += decay * p; b = momentum * b + g; p -= rate * (nesterov ? g + momentum * b : b).
static __device__ float moved(float p, float* b, float g, float rate, float momentum, float decay, int nesterov) {
    g += decay * p;
    float direction = momentum * *b + g;
    *b = direction;
    return p - rate * (nesterov ? g + momentum * direction : direction);
}

extern "C" __global__ void sgd(float* p, float* b, const float* g, long long count, float rate, float momentum,
                               float decay, int nesterov) {
    EACH(i, count) p[i] = moved(p[i], &b[i], g[i], rate, momentum, decay, nesterov);
}

// As sgd for weights of convolutions, whose gradient and working copy have the maps' type.
extern "C" __global__ void sgd_weights(float* p, float* b, const map_t* g, map_t* copy, long long count, float rate,
                                       float momentum, float decay, int nesterov) {
    EACH(i, count) {
        float value = moved(p[i], &b[i], widen(g[i]), rate, momentum, decay, nesterov);
        p[i] = value;
        copy[i] = narrow(value);
    }
}

extern "C" __global__ void to_maps(const float* from, long long count, map_t* to) {
    EACH(i, count) to[i] = narrow(from[i]);
}
