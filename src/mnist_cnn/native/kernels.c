/* A network's forward and backward pass, in float32, on a processor's vector units.
 *
 * A network is a row of blocks: convolution, then batch norm, dropout, ReLU and pooling, each where wanted.
 * Activations lie as (groups, channels, height, width, 16): sixteen images side by side fill one vector, so
 * every position of every layer is computed by whole vectors, whatever the sizes and the borders.
 *
 * Sums are formed in an order that depends neither on the number of threads nor on the width of the machine's
 * vectors: the same inputs give the same bits. Threads share the groups of images, and the weights' gradients.
 *
 * network.py lays out the memory and fills the Block structures; it says what each field means.
 */
#include <math.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

enum { LANES = 16 };
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t mask __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

/* Accumulators that fit the registers: outputs by columns of a convolution, outputs of a weights' gradient. */
#if defined(__AVX512F__)
enum { TILE_OUTPUTS = 6, TILE_COLUMNS = 4, GRADIENT_OUTPUTS = 3 };
#else
enum { TILE_OUTPUTS = 2, TILE_COLUMNS = 2, GRADIENT_OUTPUTS = 1 };
#endif

typedef struct {
    int32_t inputs, outputs, kernel, padding, height, width;
    int32_t norm, relu, pool, z_height, z_width, z_padding, dy_padding;
    uint32_t drop_below;
    float keep_scale, epsilon, momentum;
    uint64_t key;
    const float *weight, *bias, *gamma, *beta;
    float *running_mean, *running_var;
    float *x, *y, *z, *dz, *dy, *dx;
    float *dweight, *dbias, *dgamma, *dbeta;
    float *packed, *channel;
    double *sums;
} Block;

enum { POOL_NONE, POOL_MAX, POOL_AVERAGE };
/* Rows of Block.channel: act = a * y + b; the gradient is scaled and corrected; mean and 1 / deviation. */
enum { A, B, G_SCALE, Y_SCALE, OFFSET, MEAN, INVERSE, CHANNEL_ROWS };

typedef struct {
    int32_t arrived, phase;
} Barrier;

size_t block_size(void) { return sizeof(Block); }

static void wait_for_all(Barrier *barrier, int threads) {
    if (threads == 1) return;
    int32_t phase = __atomic_load_n(&barrier->phase, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        barrier->arrived = 0;
        __atomic_store_n(&barrier->phase, phase + 1, __ATOMIC_RELEASE);
        return;
    }
    /* Others end within microseconds; after that somebody else may need this processor. */
    for (int spins = 0; __atomic_load_n(&barrier->phase, __ATOMIC_ACQUIRE) == phase; spins++)
        if (spins > 4000) sched_yield();
}

INLINE vec splat(float value) { return (vec){0} + value; }
INLINE vec select(mask choose, vec yes, vec no) { return (vec)((choose & (mask)yes) | (~choose & (mask)no)); }

/* Where a thread's part of `count` things begins. */
INLINE int part(int count, int thread, int threads) { return (int64_t)count * thread / threads; }

/* Lanes that hold an image: all but in the last group of an incomplete batch. */
INLINE mask lanes_in_use(int group, int images) {
    mask lane;
    for (int i = 0; i < LANES; i++) lane[i] = group * LANES + i;
    return lane < images;
}

/* By halves: the same order on every machine. */
INLINE double total(vec v) {
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}

/* ---- Convolution ------------------------------------------------------------------------------------------- */

INLINE void convolve_tile(const int outputs, const int columns, const int kernel, const vec *x, ptrdiff_t x_channel,
                          ptrdiff_t x_row, int inputs, const float *weight, int weight_row, const float *bias, vec *y,
                          ptrdiff_t y_channel) {
    vec sum[TILE_OUTPUTS][TILE_COLUMNS];
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int c = 0; c < columns; c++) sum[o][c] = splat(bias ? bias[o] : 0);
    for (int i = 0; i < inputs; i++)
        for (int row = 0; row < kernel; row++)
            for (int column = 0; column < kernel; column++) {
                const vec *from = x + i * x_channel + row * x_row + column;
                const float *w = weight + (ptrdiff_t)((i * kernel + row) * kernel + column) * weight_row;
                vec here[TILE_COLUMNS];
                UNROLL for (int c = 0; c < columns; c++) here[c] = from[c];
                UNROLL for (int o = 0; o < outputs; o++)
                    UNROLL for (int c = 0; c < columns; c++)
                        sum[o][c] += here[c] * w[o];
            }
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int c = 0; c < columns; c++) y[o * y_channel + c] = sum[o][c];
}

INLINE void convolve_columns(const int columns, const int kernel, const vec *x, ptrdiff_t x_channel, ptrdiff_t x_row,
                             int inputs, int outputs, const float *weight, const float *bias, vec *y,
                             ptrdiff_t y_channel) {
    int o = 0;
#define OUTPUTS(count)                                                                                             \
    for (; count <= TILE_OUTPUTS && o + count <= outputs; o += count)                                              \
        convolve_tile(count, columns, kernel, x, x_channel, x_row, inputs, weight + o, outputs,                     \
                      bias ? bias + o : 0, y + o * y_channel, y_channel);
    OUTPUTS(6) OUTPUTS(4) OUTPUTS(2) OUTPUTS(1)
#undef OUTPUTS
}

/* One group: x (inputs, x_height, x_width), any part of a larger area, to y (outputs, height, width). The weights lie
 * as (inputs, taps, outputs). */
INLINE void convolve(const int kernel, const vec *x, ptrdiff_t x_channel, ptrdiff_t x_row, int inputs, int outputs,
                     int height, int width, const float *weight, const float *bias, vec *y) {
    ptrdiff_t y_channel = (ptrdiff_t)height * width;
    for (int row = 0; row < height; row++) {
        int column = 0;
#define COLUMNS(count)                                                                                             \
    for (; count <= TILE_COLUMNS && column + count <= width; column += count)                                      \
        convolve_columns(count, kernel, x + row * x_row + column, x_channel, x_row, inputs, outputs, weight, bias, \
                         y + row * width + column, y_channel);
        COLUMNS(4) COLUMNS(2) COLUMNS(1)
#undef COLUMNS
    }
}

static void convolve_any(int kernel, const vec *x, ptrdiff_t x_channel, ptrdiff_t x_row, int inputs, int outputs,
                         int height, int width, const float *weight, const float *bias, vec *y) {
    if (kernel == 1)
        convolve(1, x, x_channel, x_row, inputs, outputs, height, width, weight, bias, y);
    else
        convolve(3, x, x_channel, x_row, inputs, outputs, height, width, weight, bias, y);
}

/* The gradient of the weights from input i to some outputs, over all groups. */
INLINE void weights_gradient(const int outputs, const int kernel, const Block *block, int groups, int o, int i) {
    int x_width = block->width + kernel - 1, x_height = block->height + kernel - 1;
    int dy_width = block->width + 2 * block->dy_padding, dy_height = block->height + 2 * block->dy_padding;
    ptrdiff_t dy_channel = (ptrdiff_t)dy_height * dy_width;
    vec sum[GRADIENT_OUTPUTS][9];
    UNROLL for (int c = 0; c < outputs; c++)
        UNROLL for (int tap = 0; tap < kernel * kernel; tap++) sum[c][tap] = splat(0);
    for (int group = 0; group < groups; group++) {
        const vec *x = (const vec *)block->x + ((ptrdiff_t)group * block->inputs + i) * x_height * x_width;
        const vec *dy = (const vec *)block->dy + ((ptrdiff_t)group * block->outputs + o) * dy_channel +
                        block->dy_padding * (dy_width + 1);
        for (int row = 0; row < block->height; row++)
            for (int column = 0; column < block->width; column++) {
                vec here[GRADIENT_OUTPUTS];
                UNROLL for (int c = 0; c < outputs; c++) here[c] = dy[c * dy_channel + row * dy_width + column];
                UNROLL for (int tap = 0; tap < kernel * kernel; tap++) {
                    vec from = x[(row + tap / kernel) * x_width + column + tap % kernel];
                    UNROLL for (int c = 0; c < outputs; c++) sum[c][tap] += from * here[c];
                }
            }
    }
    UNROLL for (int c = 0; c < outputs; c++)
        UNROLL for (int tap = 0; tap < kernel * kernel; tap++)
            block->dweight[((ptrdiff_t)(o + c) * block->inputs + i) * kernel * kernel + tap] = total(sum[c][tap]);
}

/* Threads share the pairs of an input and a few outputs. */
INLINE void weights_gradients(const int kernel, const Block *block, int groups, int thread, int threads) {
    int steps = (block->outputs + GRADIENT_OUTPUTS - 1) / GRADIENT_OUTPUTS, tasks = steps * block->inputs;
    for (int task = part(tasks, thread, threads); task < part(tasks, thread + 1, threads); task++) {
        int i = task / steps, o = task % steps * GRADIENT_OUTPUTS;
        if (o + GRADIENT_OUTPUTS <= block->outputs)
            weights_gradient(GRADIENT_OUTPUTS, kernel, block, groups, o, i);
        else
            for (; o < block->outputs; o++) weights_gradient(1, kernel, block, groups, o, i);
    }
}

/* Weights as the convolution wants them: (inputs, taps, outputs). */
static void pack(const Block *block) {
    int taps = block->kernel * block->kernel;
    for (int o = 0; o < block->outputs; o++)
        for (int i = 0; i < block->inputs; i++)
            for (int tap = 0; tap < taps; tap++)
                block->packed[((ptrdiff_t)i * taps + tap) * block->outputs + o] =
                    block->weight[((ptrdiff_t)o * block->inputs + i) * taps + tap];
}

/* As the gradient of the input, itself a convolution, wants them: (outputs, taps in reverse, inputs). */
static void pack_flipped(const Block *block) {
    int taps = block->kernel * block->kernel;
    for (int o = 0; o < block->outputs; o++)
        for (int i = 0; i < block->inputs; i++)
            for (int tap = 0; tap < taps; tap++)
                block->packed[((ptrdiff_t)o * taps + taps - 1 - tap) * block->inputs + i] =
                    block->weight[((ptrdiff_t)o * block->inputs + i) * taps + tap];
}

/* ---- Batch norm, dropout, ReLU, pooling ---------------------------------------------------------------------- */

/* All ones where the position survives dropout. A hash of position and key: nothing to store, any order.
 * Its constants are those of "lowbias32" by Chris Wellons, https://nullprogram.com/blog/2018/07/31/ */
INLINE mask survives(const Block *block, uint32_t position) {
    bits hash;
    for (uint32_t i = 0; i < LANES; i++) hash[i] = i;
    hash = (hash + position * LANES) ^ (uint32_t)block->key;
    hash ^= hash >> 16;
    hash *= 0x7feb352du;
    hash ^= hash >> 15;
    hash += (uint32_t)(block->key >> 32);
    hash *= 0x846ca68bu;
    hash ^= hash >> 16;
    return hash >= block->drop_below;
}

/* The activation at a position, and by how much a change of a * y + b changes it. */
INLINE vec activate(const int relu, const int drop, const Block *block, vec y, float a, float b, uint32_t position,
                    vec *slope) {
    vec v = y * a + b;
    mask open = relu ? v > splat(0) : ~(mask){0};
    if (drop) open &= survives(block, position);
    float scale = drop ? block->keep_scale : 1;
    *slope = select(open, splat(scale), splat(0));
    return select(open, v * scale, splat(0));
}

INLINE void activate_group(const int relu, const int drop, const Block *block, int group) {
    int height = block->height, width = block->width;
    int z_width = block->z_width + 2 * block->z_padding, z_height = block->z_height + 2 * block->z_padding;
    vec unused;
    for (int c = 0; c < block->outputs; c++) {
        float a = block->channel[A * block->outputs + c], b = block->channel[B * block->outputs + c];
        uint32_t start = (group * block->outputs + c) * height * width;
        const vec *y = (const vec *)block->y + start;
        vec *z = (vec *)block->z + ((ptrdiff_t)group * block->outputs + c) * z_height * z_width +
                 block->z_padding * (z_width + 1);
#define VALUE(row, column)                                                                                         \
    activate(relu, drop, block, y[(row) * width + (column)], a, b, start + (row) * width + (column), &unused)
        if (block->pool == POOL_NONE) {
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++) z[row * z_width + column] = VALUE(row, column);
        } else if (block->pool == POOL_MAX) {
            for (int row = 0; row < block->z_height; row++)
                for (int column = 0; column < block->z_width; column++) {
                    vec best = VALUE(2 * row, 2 * column);
                    UNROLL for (int corner = 1; corner < 4; corner++) {
                        vec other = VALUE(2 * row + corner / 2, 2 * column + corner % 2);
                        best = select(other > best, other, best);
                    }
                    z[row * z_width + column] = best;
                }
        } else {
            vec sum = splat(0);
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++) sum += VALUE(row, column);
            *z = sum / splat(height * width);
        }
#undef VALUE
    }
}

/* dy becomes the gradient of a * y + b; its sum, and that of its product with y - mean, go to the group's sums. */
INLINE void activate_group_backward(const int relu, const int drop, const Block *block, int group) {
    int height = block->height, width = block->width;
    int dy_width = width + 2 * block->dy_padding, dy_height = height + 2 * block->dy_padding;
    for (int c = 0; c < block->outputs; c++) {
        float a = block->channel[A * block->outputs + c], b = block->channel[B * block->outputs + c];
        uint32_t start = (group * block->outputs + c) * height * width;
        const vec *y = (const vec *)block->y + start;
        const vec *dz = (const vec *)block->dz +
                        ((ptrdiff_t)group * block->outputs + c) * block->z_height * block->z_width;
        vec *dy = (vec *)block->dy + ((ptrdiff_t)group * block->outputs + c) * dy_height * dy_width +
                  block->dy_padding * (dy_width + 1);
        float mean = block->channel[MEAN * block->outputs + c];
        vec sum = splat(0), product = splat(0), slope;
#define ADD(row, column, gradient)                                                                                 \
    {                                                                                                              \
        vec g = gradient;                                                                                          \
        dy[(row) * dy_width + (column)] = g;                                                                       \
        sum += g;                                                                                                  \
        product += g * (y[(row) * width + (column)] - mean);                                                       \
    }
        if (block->pool == POOL_MAX) {
            /* An odd last row or column is in no window. */
            for (int row = 0; row < height; row++)
                for (int column = row < 2 * block->z_height ? 2 * block->z_width : 0; column < width; column++)
                    dy[row * dy_width + column] = splat(0);
            for (int row = 0; row < block->z_height; row++)
                for (int column = 0; column < block->z_width; column++) {
                    vec value[4], slopes[4], best;
                    UNROLL for (int corner = 0; corner < 4; corner++) {
                        int position = (2 * row + corner / 2) * width + 2 * column + corner % 2;
                        value[corner] =
                            activate(relu, drop, block, y[position], a, b, start + position, &slopes[corner]);
                        best = corner ? select(value[corner] > best, value[corner], best) : value[corner];
                    }
                    /* The first of equal values has it, as in PyTorch. */
                    mask free = ~(mask){0};
                    UNROLL for (int corner = 0; corner < 4; corner++) {
                        mask chosen = free & (value[corner] == best);
                        free &= ~chosen;
                        ADD(2 * row + corner / 2, 2 * column + corner % 2,
                            select(chosen, dz[row * block->z_width + column] * slopes[corner], splat(0)));
                    }
                }
        } else {
            vec share = *dz / splat(height * width);
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++) {
                    int position = row * width + column;
                    activate(relu, drop, block, y[position], a, b, start + position, &slope);
                    ADD(row, column, (block->pool == POOL_NONE ? dz[position] : share) * slope);
                }
        }
#undef ADD
        block->sums[(group * block->outputs + c) * 2] = total(sum);
        block->sums[(group * block->outputs + c) * 2 + 1] = total(product);
    }
}

#define BY_KIND(function, drop, block, group)                                                                      \
    if (block->relu)                                                                                               \
        if (drop)                                                                                                  \
            function(1, 1, block, group);                                                                          \
        else                                                                                                       \
            function(1, 0, block, group);                                                                          \
    else if (drop)                                                                                                 \
        function(0, 1, block, group);                                                                              \
    else                                                                                                           \
        function(0, 0, block, group);

static void activate_any(const Block *block, int training, int group) {
    BY_KIND(activate_group, block->drop_below && training, block, group)
}
static void activate_any_backward(const Block *block, int group) {
    BY_KIND(activate_group_backward, block->drop_below, block, group)
}

static void sum_group(const Block *block, int group, int images) {
    int size = block->height * block->width;
    mask used = lanes_in_use(group, images);
    for (int c = 0; c < block->outputs; c++) {
        const vec *y = (const vec *)block->y + ((ptrdiff_t)group * block->outputs + c) * size;
        /* From a point near the mean: the variance, a difference of two sums, then loses nothing. */
        float near = block->running_mean[c];
        vec sum = splat(0), square = splat(0);
        for (int i = 0; i < size; i++) {
            vec distance = y[i] - near;
            sum += distance;
            square += distance * distance;
        }
        block->sums[(group * block->outputs + c) * 2] = total(select(used, sum, splat(0)));
        block->sums[(group * block->outputs + c) * 2 + 1] = total(select(used, square, splat(0)));
    }
}

/* The two sums of a channel over the groups. */
INLINE void add_groups(const Block *block, int groups, int c, double *first, double *second) {
    *first = *second = 0;
    for (int group = 0; group < groups; group++) {
        *first += block->sums[(group * block->outputs + c) * 2];
        *second += block->sums[(group * block->outputs + c) * 2 + 1];
    }
}

/* Batch norm as a multiplication and an addition a channel: by the batch's own statistics, which the running ones
 * follow, or by the running ones. */
static void fold_norm(const Block *block, int groups, int images, int training) {
    double count = (double)images * block->height * block->width;
    for (int c = 0; c < block->outputs; c++) {
        float *channel = block->channel + c;
        int row = block->outputs;
        if (!block->norm) {
            channel[A * row] = 1;
            channel[B * row] = channel[MEAN * row] = 0;
            continue;
        }
        double mean = block->running_mean[c], variance = block->running_var[c];
        if (training) {
            double distance, square;
            add_groups(block, groups, c, &distance, &square);
            distance /= count;
            mean += distance;
            variance = fmax(0, square / count - distance * distance);
            block->running_mean[c] += block->momentum * (float)distance;
            block->running_var[c] += block->momentum * ((float)(variance * count / (count - 1)) - block->running_var[c]);
        }
        double inverse = 1 / sqrt(variance + block->epsilon);
        channel[MEAN * row] = mean;
        channel[INVERSE * row] = inverse;
        channel[A * row] = block->gamma[c] * inverse;
        channel[B * row] = block->beta[c] - mean * block->gamma[c] * inverse;
    }
}

/* Gradients of gamma, beta and bias; and dy = G_SCALE * dy + Y_SCALE * y + OFFSET. */
static void fold_norm_backward(const Block *block, int groups, int images) {
    double count = (double)images * block->height * block->width;
    for (int c = 0; c < block->outputs; c++) {
        float *channel = block->channel + c;
        int row = block->outputs;
        double sum, product;
        add_groups(block, groups, c, &sum, &product);
        if (!block->norm) {
            block->dbias[c] = sum;
            continue;
        }
        double mean = channel[MEAN * row], inverse = channel[INVERSE * row], scale = block->gamma[c] * inverse;
        double projected = product * inverse;
        block->dbeta[c] = sum;
        block->dgamma[c] = projected;
        block->dbias[c] = 0; /* Batch norm takes the mean away again. */
        channel[G_SCALE * row] = scale;
        channel[Y_SCALE * row] = -scale * inverse * projected / count;
        channel[OFFSET * row] = -scale * (sum - mean * inverse * projected) / count;
    }
}

static void norm_group_backward(const Block *block, int group, int images) {
    int height = block->height, width = block->width;
    int dy_width = width + 2 * block->dy_padding, dy_height = height + 2 * block->dy_padding;
    mask used = lanes_in_use(group, images);
    for (int c = 0; c < block->outputs; c++) {
        const float *channel = block->channel + c;
        float g_scale = channel[G_SCALE * block->outputs], y_scale = channel[Y_SCALE * block->outputs];
        float offset = channel[OFFSET * block->outputs];
        const vec *y = (const vec *)block->y + ((ptrdiff_t)group * block->outputs + c) * height * width;
        vec *dy = (vec *)block->dy + ((ptrdiff_t)group * block->outputs + c) * dy_height * dy_width +
                  block->dy_padding * (dy_width + 1);
        for (int row = 0; row < height; row++)
            for (int column = 0; column < width; column++) {
                vec g = dy[row * dy_width + column] * g_scale + y[row * width + column] * y_scale + offset;
                dy[row * dy_width + column] = select(used, g, splat(0));
            }
    }
}

/* ---- The whole network --------------------------------------------------------------------------------------- */

/* In training, or as a trained network is used: running statistics, no dropout. */
void forward(const Block *blocks, int count, int images, int training, Barrier *barrier, int thread, int threads) {
    int groups = (images + LANES - 1) / LANES;
    int first = part(groups, thread, threads), last = part(groups, thread + 1, threads);
    if (thread == 0)
        for (const Block *block = blocks; block < blocks + count; block++) pack(block);
    wait_for_all(barrier, threads);
    for (const Block *block = blocks; block < blocks + count; block++) {
        int x_row = block->width + block->kernel - 1;
        int x_channel = (block->height + block->kernel - 1) * x_row;
        for (int group = first; group < last; group++) {
            convolve_any(block->kernel, (const vec *)block->x + (ptrdiff_t)group * block->inputs * x_channel, x_channel,
                         x_row, block->inputs, block->outputs, block->height, block->width, block->packed, block->bias,
                         (vec *)block->y + (ptrdiff_t)group * block->outputs * block->height * block->width);
            if (block->norm && training) sum_group(block, group, images);
        }
        wait_for_all(barrier, threads);
        if (thread == 0) fold_norm(block, groups, images, training);
        wait_for_all(barrier, threads);
        for (int group = first; group < last; group++) activate_any(block, training, group);
    }
}

/* From the gradient of the last block's z to those of all parameters, after a forward pass in training. */
void backward(const Block *blocks, int count, int images, Barrier *barrier, int thread, int threads) {
    int groups = (images + LANES - 1) / LANES;
    int first = part(groups, thread, threads), last = part(groups, thread + 1, threads);
    for (const Block *block = blocks + count - 1; block >= blocks; block--) {
        for (int group = first; group < last; group++) activate_any_backward(block, group);
        wait_for_all(barrier, threads);
        if (thread == 0) {
            fold_norm_backward(block, groups, images);
            if (block->dx) pack_flipped(block);
        }
        wait_for_all(barrier, threads);
        for (int group = first; group < last; group++) {
            if (block->norm) norm_group_backward(block, group, images);
            if (!block->dx) continue;
            int row = block->width + 2 * block->dy_padding, channel = (block->height + 2 * block->dy_padding) * row;
            /* A convolution that pads more than its kernel needs has results that no input takes part in. */
            int skip = block->dy_padding - (block->kernel - 1 - block->padding);
            int height = block->height + block->kernel - 1 - 2 * block->padding;
            int width = block->width + block->kernel - 1 - 2 * block->padding;
            convolve_any(block->kernel,
                         (const vec *)block->dy + (ptrdiff_t)group * block->outputs * channel + skip * (row + 1),
                         channel, row, block->outputs, block->inputs, height, width, block->packed, 0,
                         (vec *)block->dx + (ptrdiff_t)group * block->inputs * height * width);
        }
        wait_for_all(barrier, threads);
        if (block->kernel == 1)
            weights_gradients(1, block, groups, thread, threads);
        else
            weights_gradients(3, block, groups, thread, threads);
    }
    wait_for_all(barrier, threads);
}
