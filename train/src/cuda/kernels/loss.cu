// Cross entropy and the supervised contrastive loss, value and gradient; one block per row.

// Per row r of `rows`: the loss, whether the largest logit is the label's (first of equals), and the gradient of
// `weight` times the mean loss over `real` rows. Labels repeat every `batch` rows; rows from `real` on count nothing.
extern "C" __global__ void cross_entropy(const float* logits, const int* labels, int batch, int real, int classes,
                                         float weight, float* losses, float* hits, float* gradient) {
    __shared__ float room[THREADS];
    __shared__ int places[THREADS];
    int row = blockIdx.x, label = labels[row % batch];
    const float* values = logits + (long long)row * classes;
    float* slope = gradient + (long long)row * classes;
    if (row >= real) {
        for (int k = threadIdx.x; k < classes; k += THREADS) slope[k] = 0.0f;
        if (threadIdx.x == 0) losses[row] = hits[row] = 0.0f;
        return;
    }
    int best = argmax_over_block(values, classes, room, places);
    // The logits' own maximum, also where none is a number.
    float top = values[best];
    float sum = 0.0f;
    for (int k = threadIdx.x; k < classes; k += THREADS) sum += expf(values[k] - top);
    sum = over_block<Sum>(sum, room);
    for (int k = threadIdx.x; k < classes; k += THREADS) {
        slope[k] = weight / real * (expf(values[k] - top) / sum - (k == label ? 1.0f : 0.0f));
    }
    if (threadIdx.x == 0) {
        losses[row] = top + logf(sum) - values[label];
        hits[row] = best == label ? 1.0f : 0.0f;
    }
}

// z = p / |p|; a norm below 1e-12 is treated as that.
extern "C" __global__ void normalise_rows(const float* p, int columns, float* z, float* norms) {
    __shared__ float room[THREADS];
    long long from = (long long)blockIdx.x * columns;
    float sum = 0.0f;
    for (int k = threadIdx.x; k < columns; k += THREADS) sum += p[from + k] * p[from + k];
    float norm = sqrtf(over_block<Sum>(sum, room));
    if (norm < 1e-12f) norm = 1e-12f;
    for (int k = threadIdx.x; k < columns; k += THREADS) z[from + k] = p[from + k] / norm;
    if (threadIdx.x == 0) norms[blockIdx.x] = norm;
}

// The gradient by p from the one by z, in place: (g - z (z . g)) / |p|.
extern "C" __global__ void normalise_rows_gradient(float* g, const float* z, const float* norms, int columns) {
    __shared__ float room[THREADS];
    long long from = (long long)blockIdx.x * columns;
    float along = 0.0f;
    for (int k = threadIdx.x; k < columns; k += THREADS) along += g[from + k] * z[from + k];
    along = over_block<Sum>(along, room);
    for (int k = threadIdx.x; k < columns; k += THREADS) {
        g[from + k] = (g[from + k] - z[from + k] * along) / norms[blockIdx.x];
    }
}

// The contrastive loss from the similarities s = z z' / temperature, rows x rows, which become the loss's gradient by
// z z'. Rows: `real` of labelled pictures (labels repeat every `batch`), then background, whose weight says how many
// copies of it there are. Background is in every denominator, and with `own_class` one more class with anchors.
// terms[row] is what the row adds to the loss; total[0] the sum of all weights.
extern "C" __global__ void supcon(float* s, const int* labels, int batch, int real, int rows, const float* weights,
                                  const float* total, int own_class, float temperature, float base, float* terms) {
    __shared__ float room[THREADS];
    int i = blockIdx.x;
    float* mine = s + (long long)i * rows;
    float copies = weights ? weights[i] : 1.0f;
    int label = i < real ? labels[i % batch] : -1;
    bool anchor = (i < real || own_class) && copies > 0.0f;
    float count = 0.0f, top = -INFINITE, near = 0.0f;
    for (int a = threadIdx.x; a < rows && anchor; a += THREADS) {
        float others = (weights ? weights[a] : 1.0f) - (a == i ? 1.0f : 0.0f);
        bool positive = (a < real ? labels[a % batch] : -1) == label;
        if (others > 0.0f) top = Greatest::of(top, mine[a]);
        if (positive) {
            count += others;
            near += others * mine[a];
        }
    }
    count = over_block<Sum>(count, room);
    near = over_block<Sum>(near, room);
    top = over_block<Greatest>(top, room);
    float sum = 0.0f;
    anchor = anchor && count > 0.0f;
    for (int a = threadIdx.x; a < rows && anchor; a += THREADS) {
        float others = (weights ? weights[a] : 1.0f) - (a == i ? 1.0f : 0.0f);
        if (others > 0.0f) sum += others * expf(mine[a] - top);
    }
    sum = over_block<Sum>(sum, room);
    float scale = temperature / base / (own_class && total ? total[0] : (float)real);
    if (threadIdx.x == 0) terms[i] = anchor ? copies * scale * (top + logf(sum) - near / count) : 0.0f;
    for (int a = threadIdx.x; a < rows; a += THREADS) {
        float others = (weights ? weights[a] : 1.0f) - (a == i ? 1.0f : 0.0f);
        bool positive = (a < real ? labels[a % batch] : -1) == label;
        float pull = positive ? 1.0f / count : 0.0f;
        bool takes_part = anchor && others > 0.0f;
        mine[a] = takes_part ? copies * scale / temperature * others * (expf(mine[a] - top) / sum - pull) : 0.0f;
    }
}

// totals[4] = sums of the contrastive terms, of the cross entropies, of the hits, and of the pictures that pass the
// label-consistency test; null where there are none. One block.
extern "C" __global__ void totals(const float* terms, int rows, const float* losses, const float* hits, int real,
                                  const int* predicted, const int* labels, int batch, float* out) {
    __shared__ float room[THREADS];
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int i = threadIdx.x; terms && i < rows; i += THREADS) sums[0] += terms[i];
    for (int i = threadIdx.x; losses && i < real; i += THREADS) {
        sums[1] += losses[i];
        sums[2] += hits[i];
    }
    for (int i = threadIdx.x; predicted && i < batch; i += THREADS) sums[3] += predicted[i] == labels[i] ? 1.0f : 0.0f;
    for (int k = 0; k < 4; ++k) {
        float sum = over_block<Sum>(sums[k], room);
        if (threadIdx.x == 0) out[k] = sum;
    }
}
