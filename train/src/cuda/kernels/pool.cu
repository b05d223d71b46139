// Pooling, and the steps between maps and matrices.

// Mean over the map: rows x channels.
extern "C" __global__ void global_pool(const map_t* x, int rows, int area, int channels, float* y) {
    int packs = channels / PACK;
    EACH(at, (long long)rows * packs) {
        int row = (int)(at / packs), pack = (int)(at % packs);
        Floats sum = {};
        for (int p = 0; p < area; ++p) {
            Floats v = load(x, ((long long)row * area + p) * packs + pack);
            for (int i = 0; i < PACK; ++i) sum.v[i] += v.v[i];
        }
        for (int i = 0; i < PACK; ++i) y[(long long)row * channels + pack * PACK + i] = sum.v[i] / area;
    }
}

extern "C" __global__ void global_pool_gradient(const float* g, int rows, int area, int channels, map_t* dx) {
    int packs = channels / PACK;
    EACH(at, (long long)rows * area * packs) {
        int row = (int)(at / packs / area), pack = (int)(at % packs);
        Floats v = channels_of(g + (long long)row * channels, pack);
        for (int i = 0; i < PACK; ++i) v.v[i] /= area;
        store(dx, at, v);
    }
}

// Where a pooling window begins and ends in the map.
static __device__ void window(int at, int kernel, int stride, int padding, int side, int* from, int* to) {
    int first = at * stride - padding, last = first + kernel;
    *from = first < 0 ? 0 : first;
    *to = last > side ? side : last;
}

// Maximum over windows, padding by minus infinity.
extern "C" __global__ void max_pool(const map_t* x, int rows, int height, int width, int channels, int kernel,
                                    int stride, int padding, int to_height, int to_width, map_t* y) {
    int packs = channels / PACK;
    EACH(at, (long long)rows * to_height * to_width * packs) {
        int pack = (int)(at % packs);
        long long place = at / packs;
        int row = (int)(place / to_width / to_height), top, bottom, left, right;
        window((int)(place / to_width % to_height), kernel, stride, padding, height, &top, &bottom);
        window((int)(place % to_width), kernel, stride, padding, width, &left, &right);
        Floats most;
        for (int i = 0; i < PACK; ++i) most.v[i] = -INFINITE;
        for (int v = top; v < bottom; ++v) {
            for (int u = left; u < right; ++u) {
                Floats value = load(x, (((long long)row * height + v) * width + u) * packs + pack);
                for (int i = 0; i < PACK; ++i) most.v[i] = Greatest::of(most.v[i], value.v[i]);
            }
        }
        store(y, at, most);
    }
}

// The first of equal maxima gets the gradient: each input pixel looks through the windows that hold it.
extern "C" __global__ void max_pool_gradient(const map_t* x, const map_t* y, const map_t* g, int rows, int height,
                                             int width, int channels, int kernel, int stride, int padding,
                                             int to_height, int to_width, map_t* dx) {
    int packs = channels / PACK;
    EACH(at, (long long)rows * height * width * packs) {
        int pack = (int)(at % packs);
        long long place = at / packs;
        int row = (int)(place / width / height), v = (int)(place / width % height), u = (int)(place % width);
        Floats mine = load(x, at), sum = {};
        for (int down = 0; down < to_height; ++down) {
            int top, bottom;
            window(down, kernel, stride, padding, height, &top, &bottom);
            if (v < top) break;
            if (v >= bottom) continue;
            for (int across = 0; across < to_width; ++across) {
                int left, right;
                window(across, kernel, stride, padding, width, &left, &right);
                if (u < left) break;
                if (u >= right) continue;
                long long out = (((long long)row * to_height + down) * to_width + across) * packs + pack;
                Floats most = load(y, out), gradient = load(g, out);
                bool first[PACK];
                for (int i = 0; i < PACK; ++i) first[i] = mine.v[i] == most.v[i];
                for (int b = top; b <= v; ++b) {
                    for (int a = left; a < (b == v ? u : right); ++a) {
                        Floats earlier = load(x, (((long long)row * height + b) * width + a) * packs + pack);
                        for (int i = 0; i < PACK; ++i) first[i] = first[i] && earlier.v[i] != most.v[i];
                    }
                }
                for (int i = 0; i < PACK; ++i) sum.v[i] += first[i] ? gradient.v[i] : 0.0f;
            }
        }
        store(dx, at, sum);
    }
}
