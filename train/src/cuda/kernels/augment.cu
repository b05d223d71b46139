// Pictures as bytes to views: crop, resize, mirror, colour jitter, greyscale, normalise. One block per view. What is
// random was drawn on the host, by the generator that the CPU's views are drawn with.

#define MAX_SIDE 1024
#define NONE 15

struct View {
    int picture, top, left, height, width, mirror, grey;
    // Four operations, four bits each, first one lowest: brightness, contrast, saturation, hue, or NONE.
    int order;
    float brightness, contrast, saturation, hue;
    // The clean picture: nothing but normalised, and mirrored where asked.
    int standard, reserved[3];
};

// One output sample along an axis: two input samples and their weights.
struct __align__(16) Tap {
    int first, second;
    float a, b;
};

static __device__ double triangle(double x) {
    double height = 1.0 - (x < 0.0 ? -x : x);
    return height > 0.0 ? height : 0.0;
}

// Bilinear enlarging of `input` samples to `output`, the rule of Pillow and torchvision, normalised at the borders.
static __device__ Tap enlarging(int o, int input, int output) {
    double centre = (o + 0.5) * ((double)input / output);
    int first = centre - 0.5 > 0.0 ? (int)(centre - 0.5) : 0;
    int last = (int)(centre + 1.5);
    last = last > input ? input : last;
    last = last > first + 1 ? last : first + 1;
    double a = triangle(first - centre + 0.5), b = last - first > 1 ? triangle(first + 1 - centre + 0.5) : 0.0;
    Tap tap;
    tap.first = first;
    tap.second = last - 1;
    tap.a = (float)(a / (a + b));
    tap.b = (float)(b / (a + b));
    return tap;
}

struct Colour {
    float r, g, b;
};

static __device__ float clip(float x) { return x < 0.0f ? 0.0f : (x > 1.0f ? 1.0f : x); }

static __device__ Colour blend(Colour c, float factor, float shift) {
    return {clip(factor * c.r + shift), clip(factor * c.g + shift), clip(factor * c.b + shift)};
}

static __device__ float grey_of(Colour c) { return 0.2989f * c.r + 0.587f * c.g + 0.114f * c.b; }

static __device__ float hue_channel(float n, float hue, float top, float chroma) {
    float k = n + hue;
    k = k >= 6.0f ? k - 6.0f : k;
    return top - chroma * clip(k < 4.0f - k ? k : 4.0f - k);
}

// Shifts the hue by `turn` of a full turn, keeping HSV saturation and value.
static __device__ Colour turned(Colour c, float turn) {
    float top = Greatest::of(Greatest::of(c.r, c.g), c.b);
    float chroma = top - Least::of(Least::of(c.r, c.g), c.b);
    float inverse = 1.0f / (chroma > 0.0f ? chroma : 1.0f);
    float h;
    if (top == c.r) h = (c.g - c.b) * inverse;
    else if (top == c.g) h = 2.0f + (c.b - c.r) * inverse;
    else h = 4.0f + (c.r - c.g) * inverse;
    h += 6.0f * turn;
    h = h < 0.0f ? h + 6.0f : h;
    h = h >= 6.0f ? h - 6.0f : h;
    return {hue_channel(5.0f, h, top, chroma), hue_channel(3.0f, h, top, chroma), hue_channel(1.0f, h, top, chroma)};
}

static __device__ Colour resized(const unsigned char* picture, int side, const Tap& x, const Tap& y) {
    float v[3];
    for (int c = 0; c < 3; ++c) {
        const unsigned char *upper = picture + y.first * side * 3 + c, *lower = picture + y.second * side * 3 + c;
        float top = x.a * (upper[x.first * 3] * (1.0f / 255.0f)) + x.b * (upper[x.second * 3] * (1.0f / 255.0f));
        float bottom = x.a * (lower[x.first * 3] * (1.0f / 255.0f)) + x.b * (lower[x.second * 3] * (1.0f / 255.0f));
        v[c] = y.a * top + y.b * bottom;
    }
    return {v[0], v[1], v[2]};
}

// The view's colour operations in their order: up to the contrast (`until_contrast`), whose mean is then unknown, or all.
static __device__ Colour coloured(Colour c, const View& view, float mean, bool until_contrast) {
    for (int k = 0; k < 4; ++k) {
        int operation = view.order >> (4 * k) & 15;
        if (operation == 0) c = blend(c, view.brightness, 0.0f);
        else if (operation == 1) {
            if (until_contrast) break;
            c = blend(c, view.contrast, (1.0f - view.contrast) * mean);
        } else if (operation == 2) c = blend(c, view.saturation, (1.0f - view.saturation) * grey_of(c));
        else if (operation == 3) c = turned(c, view.hue);
    }
    return c;
}

static __device__ bool has_contrast(const View& view) {
    for (int k = 0; k < 4; ++k) {
        if ((view.order >> (4 * k) & 15) == 1) return true;
    }
    return false;
}

// out: one picture of side x side x PACK per view, channels beyond the third 0; pictures are side x side x 3 bytes.
extern "C" __global__ void views(const unsigned char* pictures, const View* views, int side, float mean_r, float mean_g,
                                 float mean_b, float std_r, float std_g, float std_b, map_t* out) {
    __shared__ Tap across[MAX_SIDE], down[MAX_SIDE];
    __shared__ float room[THREADS];
    const View view = views[blockIdx.x];
    const unsigned char* picture = pictures + (long long)view.picture * side * side * 3;
    const unsigned char* crop = picture + (view.top * side + view.left) * 3;
    int pixels = side * side;
    long long base = (long long)blockIdx.x * pixels;
    if (view.standard) {
        for (int p = threadIdx.x; p < pixels; p += THREADS) {
            const unsigned char* pixel = picture + 3 * (view.mirror ? p + side - 1 - 2 * (p % side) : p);
            Floats v = {};
            v.v[0] = (pixel[0] / 255.0f - mean_r) / std_r;
            v.v[1] = (pixel[1] / 255.0f - mean_g) / std_g;
            v.v[2] = (pixel[2] / 255.0f - mean_b) / std_b;
            store(out, base + p, v);
        }
        return;
    }
    for (int o = threadIdx.x; o < side; o += THREADS) {
        across[view.mirror ? side - 1 - o : o] = enlarging(o, view.width, side);
        down[o] = enlarging(o, view.height, side);
    }
    __syncthreads();
    float mean = 0.0f;
    if (has_contrast(view)) {
        for (int p = threadIdx.x; p < pixels; p += THREADS) {
            Colour c = resized(crop, side, across[p % side], down[p / side]);
            mean += grey_of(coloured(c, view, 0.0f, true));
        }
        mean = over_block<Sum>(mean, room) / pixels;
    }
    for (int p = threadIdx.x; p < pixels; p += THREADS) {
        Colour c = coloured(resized(crop, side, across[p % side], down[p / side]), view, mean, false);
        if (view.grey) c.r = c.g = c.b = grey_of(c);
        Floats v = {};
        v.v[0] = (c.r - mean_r) / std_r;
        v.v[1] = (c.g - mean_g) / std_g;
        v.v[2] = (c.b - mean_b) / std_b;
        store(out, base + p, v);
    }
}
