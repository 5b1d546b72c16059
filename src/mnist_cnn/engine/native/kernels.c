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

/* Accumulators that fit the registers: of a direct convolution outputs by columns, of one by points outputs, of its
 * weights' gradient outputs by inputs. */
#if defined(__AVX512F__)
enum { TILE_OUTPUTS = 6, TILE_COLUMNS = 4, GRADIENT_OUTPUTS = 3, POINTS_OUTPUTS = 4, PAIR_OUTPUTS = 4, PAIR_INPUTS = 2 };
#else
enum { TILE_OUTPUTS = 2, TILE_COLUMNS = 2, GRADIENT_OUTPUTS = 1, POINTS_OUTPUTS = 1, PAIR_OUTPUTS = 2, PAIR_INPUTS = 1 };
#endif

typedef struct {
    int32_t inputs, outputs, kernel, padding, height, width, sections;
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
/* Rows of Block.channel. Batch norm is (y - MEAN) * SCALE + SHIFT. On the way back dy, the gradient of that, becomes
 * (dy - DY_MEAN - (y - MEAN) * SLOPE) * SCALE, that of y. INVERSE is 1 / deviation. */
enum { MEAN, SCALE, SHIFT, DY_MEAN, SLOPE, INVERSE, CHANNEL_ROWS };

/* Abandoned where a thread will not come: the others then run to the end, and what they compute is worthless. */
typedef struct {
    int32_t arrived, phase, abandoned;
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
    for (int spins = 0; __atomic_load_n(&barrier->phase, __ATOMIC_ACQUIRE) == phase; spins++) {
        if (__atomic_load_n(&barrier->abandoned, __ATOMIC_ACQUIRE)) return;
        if (spins > 4000) sched_yield();
    }
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

INLINE int least(int a, int b) { return a < b ? a : b; }
INLINE int largest(int a, int b) { return a > b ? a : b; }

/* ---- Where a group's part of a buffer lies; of z and dy, its first position inside the border ----------------- */

INLINE int x_width(const Block *block) { return block->width + block->kernel - 1; }
INLINE int x_height(const Block *block) { return block->height + block->kernel - 1; }
INLINE int z_row(const Block *block) { return block->z_width + 2 * block->z_padding; }
INLINE int dy_row(const Block *block) { return block->width + 2 * block->dy_padding; }
INLINE ptrdiff_t x_channel(const Block *block) { return (ptrdiff_t)x_height(block) * x_width(block); }
INLINE ptrdiff_t y_channel(const Block *block) { return (ptrdiff_t)block->height * block->width; }
INLINE ptrdiff_t dz_channel(const Block *block) { return (ptrdiff_t)block->z_height * block->z_width; }
INLINE ptrdiff_t z_channel(const Block *block) {
    return (ptrdiff_t)(block->z_height + 2 * block->z_padding) * z_row(block);
}
INLINE ptrdiff_t dy_channel(const Block *block) {
    return (ptrdiff_t)(block->height + 2 * block->dy_padding) * dy_row(block);
}
/* A convolution in sections is as many independent ones, each from its own inputs to its own outputs. */
INLINE int section_inputs(const Block *block) { return block->inputs / block->sections; }
INLINE int section_outputs(const Block *block) { return block->outputs / block->sections; }
INLINE const vec *x_of(const Block *block, int group, int i) {
    return (const vec *)block->x + ((ptrdiff_t)group * block->inputs + i) * x_channel(block);
}
INLINE vec *y_of(const Block *block, int group, int o) {
    return (vec *)block->y + ((ptrdiff_t)group * block->outputs + o) * y_channel(block);
}
INLINE vec *z_of(const Block *block, int group, int o) {
    return (vec *)block->z + ((ptrdiff_t)group * block->outputs + o) * z_channel(block) +
           block->z_padding * (z_row(block) + 1);
}
INLINE const vec *dz_of(const Block *block, int group, int o) {
    return (const vec *)block->dz + ((ptrdiff_t)group * block->outputs + o) * dz_channel(block);
}
INLINE vec *dy_of(const Block *block, int group, int o) {
    return (vec *)block->dy + ((ptrdiff_t)group * block->outputs + o) * dy_channel(block) +
           block->dy_padding * (dy_row(block) + 1);
}

/* ---- Convolution, directly ----------------------------------------------------------------------------------- */

INLINE void convolve_tile(const int outputs, const int columns, const int kernel, const vec *x, ptrdiff_t x_step,
                          ptrdiff_t x_row, int inputs, const float *weight, int weight_row, const float *bias, vec *y,
                          ptrdiff_t y_step) {
    vec sum[TILE_OUTPUTS][TILE_COLUMNS];
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int c = 0; c < columns; c++) sum[o][c] = splat(bias ? bias[o] : 0);
    for (int i = 0; i < inputs; i++)
        for (int row = 0; row < kernel; row++)
            for (int column = 0; column < kernel; column++) {
                const vec *from = x + i * x_step + row * x_row + column;
                const float *w = weight + (ptrdiff_t)((i * kernel + row) * kernel + column) * weight_row;
                vec here[TILE_COLUMNS];
                UNROLL for (int c = 0; c < columns; c++) here[c] = from[c];
                UNROLL for (int o = 0; o < outputs; o++)
                    UNROLL for (int c = 0; c < columns; c++)
                        sum[o][c] += here[c] * w[o];
            }
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int c = 0; c < columns; c++) y[o * y_step + c] = sum[o][c];
}

INLINE void convolve_columns(const int columns, const int kernel, const vec *x, ptrdiff_t x_step, ptrdiff_t x_row,
                             int inputs, int outputs, const float *weight, const float *bias, vec *y,
                             ptrdiff_t y_step) {
    int o = 0;
#define OUTPUTS(count)                                                                                             \
    for (; count <= TILE_OUTPUTS && o + count <= outputs; o += count)                                              \
        convolve_tile(count, columns, kernel, x, x_step, x_row, inputs, weight + o, outputs,                     \
                      bias ? bias + o : 0, y + o * y_step, y_step);
    OUTPUTS(6) OUTPUTS(4) OUTPUTS(2) OUTPUTS(1)
#undef OUTPUTS
}

/* One group: x (inputs, x_height, x_width), any part of a larger area, to y (outputs, height, width). The weights lie
 * as (inputs, taps, outputs). */
INLINE void convolve(const int kernel, const vec *x, ptrdiff_t x_step, ptrdiff_t x_row, int inputs, int outputs,
                     int height, int width, const float *weight, const float *bias, vec *y) {
    ptrdiff_t y_step = (ptrdiff_t)height * width;
    for (int row = 0; row < height; row++) {
        int column = 0;
#define COLUMNS(count)                                                                                             \
    for (; count <= TILE_COLUMNS && column + count <= width; column += count)                                      \
        convolve_columns(count, kernel, x + row * x_row + column, x_step, x_row, inputs, outputs, weight, bias, \
                         y + row * width + column, y_step);
        COLUMNS(4) COLUMNS(2) COLUMNS(1)
#undef COLUMNS
    }
}

/* The gradient of the weights from input i to some outputs, over all groups, to dweight, a step apart. */
INLINE void weights_gradient(const int outputs, const int kernel, const Block *block, int groups, int o, int i,
                             float *dweight, ptrdiff_t step) {
    int width = x_width(block), dy_width = dy_row(block);
    ptrdiff_t dy_step = dy_channel(block);
    vec sum[GRADIENT_OUTPUTS][9];
    UNROLL for (int c = 0; c < outputs; c++)
        UNROLL for (int tap = 0; tap < kernel * kernel; tap++) sum[c][tap] = splat(0);
    for (int group = 0; group < groups; group++) {
        const vec *x = x_of(block, group, i), *dy = dy_of(block, group, o);
        for (int row = 0; row < block->height; row++)
            for (int column = 0; column < block->width; column++) {
                vec here[GRADIENT_OUTPUTS];
                UNROLL for (int c = 0; c < outputs; c++) here[c] = dy[c * dy_step + row * dy_width + column];
                UNROLL for (int tap = 0; tap < kernel * kernel; tap++) {
                    vec from = x[(row + tap / kernel) * width + column + tap % kernel];
                    UNROLL for (int c = 0; c < outputs; c++) sum[c][tap] += from * here[c];
                }
            }
    }
    UNROLL for (int c = 0; c < outputs; c++)
        UNROLL for (int tap = 0; tap < kernel * kernel; tap++)
            dweight[c * step + tap] = total(sum[c][tap]);
}

/* Threads share the pairs of an input and a few outputs; of a convolution in sections, the outputs. */
INLINE void weights_gradients(const int kernel, const Block *block, int groups, int thread, int threads) {
    int inputs = section_inputs(block), outputs = section_outputs(block), taps = kernel * kernel;
    ptrdiff_t step = inputs * taps;
    if (block->sections > 1) {
        for (int o = part(block->outputs, thread, threads); o < part(block->outputs, thread + 1, threads); o++)
            for (int i = 0; i < inputs; i++)
                weights_gradient(1, kernel, block, groups, o, o / outputs * inputs + i,
                                 block->dweight + o * step + i * taps, step);
        return;
    }
    int steps = (block->outputs + GRADIENT_OUTPUTS - 1) / GRADIENT_OUTPUTS, tasks = steps * block->inputs;
    for (int task = part(tasks, thread, threads); task < part(tasks, thread + 1, threads); task++) {
        int i = task / steps, o = task % steps * GRADIENT_OUTPUTS;
        float *dweight = block->dweight + o * step + i * taps;
        if (o + GRADIENT_OUTPUTS <= block->outputs)
            weights_gradient(GRADIENT_OUTPUTS, kernel, block, groups, o, i, dweight, step);
        else
            for (; o < block->outputs; o++, dweight += step)
                weights_gradient(1, kernel, block, groups, o, i, dweight, step);
    }
}

/* ---- 3x3 convolution by points ------------------------------------------------------------------------------- */

/* Four neighbouring results of three weights are values of a polynomial product, which six points determine: 6
 * multiplications where the direct way has 12. The points are 0, 1, -1, 2, -2 and infinity. The rows of a kernel are
 * added up at the points. A width that four does not divide has its last span overlap the one before.
 * Source: "Fast Algorithms for Convolutional Neural Networks", 2015, https://arxiv.org/abs/1509.09308, F(4, 3) */
enum { SPAN = 4, POINTS = 6, TAPS = 3 };

INLINE int by_points(int kernel, int width) { return kernel == TAPS && width >= SPAN; }
INLINE int spans_of(int width) { return (width + SPAN - 1) / SPAN; }
INLINE int span_start(int span, int width) { return least(span * SPAN, width - SPAN); }

/* Six neighbouring values at the points, `step` apart. All products are exact, here and below: whichever of them a
 * compiler merges with its sum, the result is the same. */
INLINE void to_points(const vec *x, vec *at, ptrdiff_t step) {
    vec even = x[4] - 4 * x[2], odd = x[3] - 4 * x[1];
    vec even_2 = x[4] - x[2], odd_2 = 2 * (x[3] - x[1]);
    at[0 * step] = even_2 + 4 * (x[0] - x[2]);
    at[1 * step] = even + odd;
    at[2 * step] = even - odd;
    at[3 * step] = even_2 + odd_2;
    at[4 * step] = even_2 - odd_2;
    at[5 * step] = x[5] - x[3] + 4 * (x[1] - x[3]);
}

/* Four results from their values at the points. */
INLINE void from_points(const vec *at, float bias, vec *y) {
    vec sum = at[1] + at[2], difference = at[1] - at[2], sum_2 = at[3] + at[4], difference_2 = at[3] - at[4];
    y[0] = at[0] + sum + sum_2 + bias;
    y[1] = difference + 2 * difference_2 + bias;
    y[2] = sum + 4 * sum_2 + bias;
    y[3] = difference + 8 * difference_2 + at[5] + bias;
}

/* The same forms turned round, for the gradient of the weights: four gradients of results at the points ... */
INLINE void gradient_to_points(const vec dy[SPAN], vec *at, ptrdiff_t step) {
    vec even = dy[0] + dy[2], odd = dy[1] + dy[3], even_2 = dy[0] + 4 * dy[2], odd_2 = 2 * dy[1] + 8 * dy[3];
    at[0 * step] = dy[0];
    at[1 * step] = even + odd;
    at[2 * step] = even - odd;
    at[3 * step] = even_2 + odd_2;
    at[4 * step] = even_2 - odd_2;
    at[5 * step] = dy[3];
}

/* ... and three weights' gradients from their values at the points; */
INLINE void gradient_from_points(const double at[POINTS], float *dweight) {
    double sum = (at[1] + at[2]) / 6, sum_2 = at[3] + at[4];
    dweight[0] = at[0] / 4 - sum + sum_2 / 24;
    dweight[1] = (at[2] - at[1]) / 6 + (at[3] - at[4]) / 12;
    dweight[2] = sum_2 / 6 - sum + at[5];
}

/* ... and three weights at the points, `step` apart. */
INLINE void weights_to_points(double w0, double w1, double w2, float *at, ptrdiff_t step) {
    at[0 * step] = w0 / 4;
    at[1 * step] = -(w0 + w1 + w2) / 6;
    at[2 * step] = -(w0 - w1 + w2) / 6;
    at[3 * step] = (w0 + 2 * w1 + 4 * w2) / 24;
    at[4 * step] = (w0 - 2 * w1 + 4 * w2) / 24;
    at[5 * step] = w2;
}

/* How many outputs, from output o on, are computed together. */
INLINE int together(int o, int outputs, int most) {
    int count = most;
    while (count > outputs - o) count /= 2;
    return count;
}

/* One span of some outputs. rows: the input's points of three rows, each (inputs, spans, points), from the span on. */
INLINE void convolve_span(const int outputs, const vec *const rows[TAPS], int first, int last, ptrdiff_t step,
                          int inputs, const float *weight, const float *bias, vec *y, ptrdiff_t y_step) {
    vec sum[POINTS_OUTPUTS][POINTS];
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int point = 0; point < POINTS; point++) sum[o][point] = splat(0);
    for (int tap = first; tap < last; tap++)
        for (int i = 0; i < inputs; i++) {
            const vec *at = rows[tap] + i * step;
            const float *w = weight + (ptrdiff_t)(tap * inputs + i) * POINTS * outputs;
            UNROLL for (int point = 0; point < POINTS; point++) {
                vec here = at[point];
                UNROLL for (int o = 0; o < outputs; o++) sum[o][point] += here * w[point * outputs + o];
            }
        }
    UNROLL for (int o = 0; o < outputs; o++) from_points(sum[o], bias ? bias[o] : 0, y + o * y_step);
}

/* One group, as `convolve`. The first and last `border` rows of x are zeros. scratch: the points of three rows. */
static void convolve_by_points(const vec *x, ptrdiff_t x_step, ptrdiff_t x_row, int border, int inputs, int outputs,
                               int height, int width, const float *weight, const float *bias, vec *y, vec *scratch) {
    int spans = spans_of(width);
    ptrdiff_t step = spans * POINTS, y_step = (ptrdiff_t)height * width;
    int end = height + TAPS - 1 - border;
    for (int row = 0; row < height + TAPS - 1; row++) {
        vec *at = scratch + row % TAPS * inputs * step;
        if (row >= border && row < end)
            for (int i = 0; i < inputs; i++)
                for (int span = 0; span < spans; span++)
                    to_points(x + i * x_step + row * x_row + span_start(span, width), at + i * step + span * POINTS, 1);
        int result = row - TAPS + 1;
        if (result < 0) continue;
        int first = largest(0, border - result), last = least(TAPS, end - result);
        for (int span = 0; span < spans; span++) {
            const vec *rows[TAPS];
            for (int tap = 0; tap < TAPS; tap++)
                rows[tap] = scratch + (result + tap) % TAPS * inputs * step + span * POINTS;
            vec *to = y + result * width + span_start(span, width);
            for (int o = 0, count; o < outputs; o += count) {
                count = together(o, outputs, POINTS_OUTPUTS);
                const float *w = weight + (ptrdiff_t)o * inputs * TAPS * POINTS;
#define OUTPUTS(number)                                                                                            \
    if (number <= POINTS_OUTPUTS && count == number)                                                               \
        convolve_span(number, rows, first, last, step, inputs, w, bias ? bias + o : 0, to + o * y_step, y_step);
                OUTPUTS(4) OUTPUTS(2) OUTPUTS(1)
#undef OUTPUTS
            }
        }
    }
}

/* The weights' gradients of large maps are summed some rows at a time, of small ones some groups at a time: enough
 * for sums to be worth loading and storing, little enough for the caches. */
typedef struct {
    int rows, groups;
} Portion;

INLINE Portion portion_of(const Block *block) {
    enum { SPANS = 64 };
    int spans = spans_of(block->width) * block->height, portions = (spans + SPANS - 1) / SPANS;
    return (Portion){(block->height + portions - 1) / portions, largest(1, SPANS / spans)};
}

/* Products of some outputs' gradients with some inputs, at one point, added to sums (outputs, inputs, taps). */
INLINE void add_products(const int outputs, const int inputs, const vec *dy, ptrdiff_t dy_step, ptrdiff_t dy_group,
                         const vec *x, ptrdiff_t x_step, ptrdiff_t x_group, int groups, int positions, int spans,
                         vec *sums, ptrdiff_t sums_step) {
    vec sum[PAIR_OUTPUTS][PAIR_INPUTS][TAPS];
#define EACH                                                                                                       \
    UNROLL for (int o = 0; o < outputs; o++)                                                                       \
        UNROLL for (int i = 0; i < inputs; i++)                                                                    \
            UNROLL for (int tap = 0; tap < TAPS; tap++)
    EACH sum[o][i][tap] = sums[o * sums_step + i * TAPS + tap];
    for (int group = 0; group < groups; group++)
        for (int n = 0; n < positions; n++) {
            vec g[PAIR_OUTPUTS];
            UNROLL for (int o = 0; o < outputs; o++) g[o] = dy[o * dy_step + group * dy_group + n];
            UNROLL for (int i = 0; i < inputs; i++)
                UNROLL for (int tap = 0; tap < TAPS; tap++) {
                    vec from = x[i * x_step + group * x_group + n + tap * spans];
                    UNROLL for (int o = 0; o < outputs; o++) sum[o][i][tap] += g[o] * from;
                }
        }
    EACH sums[o * sums_step + i * TAPS + tap] = sum[o][i][tap];
#undef EACH
}

/* Threads share the outputs. scratch: sums (points, outputs, inputs, taps); a portion's points of x (points, inputs,
 * groups, rows + 2, spans) and of dy (points, outputs, groups, rows, spans). */
static void weights_gradients_by_points(const Block *block, int groups, vec *scratch, int thread, int threads) {
    int first = part(block->outputs, thread, threads), outputs = part(block->outputs, thread + 1, threads) - first;
    if (!outputs) return;
    int inputs = block->inputs, spans = spans_of(block->width);
    Portion portion = portion_of(block);
    int dy_group = portion.rows * spans, x_group = (portion.rows + TAPS - 1) * spans;
    ptrdiff_t dy_step = portion.groups * dy_group, x_step = portion.groups * x_group;
    ptrdiff_t sums_step = inputs * TAPS, sums_point = outputs * sums_step;
    vec *sums = scratch, *x_at = sums + POINTS * sums_point, *dy_at = x_at + POINTS * inputs * x_step;
    for (ptrdiff_t i = 0; i < POINTS * sums_point; i++) sums[i] = splat(0);
    for (int group = 0; group < groups; group += portion.groups)
        for (int row = 0; row < block->height; row += portion.rows) {
            int count = least(portion.groups, groups - group), rows = least(portion.rows, block->height - row);
            for (int g = 0; g < count; g++) {
                for (int i = 0; i < inputs; i++) {
                    const vec *x = x_of(block, group + g, i) + row * x_width(block);
                    for (int r = 0; r < rows + TAPS - 1; r++)
                        for (int span = 0; span < spans; span++)
                            to_points(x + r * x_width(block) + span_start(span, block->width),
                                      x_at + i * x_step + g * x_group + r * spans + span, inputs * x_step);
                }
                for (int o = 0; o < outputs; o++) {
                    const vec *dy = dy_of(block, group + g, first + o) + row * dy_row(block);
                    for (int r = 0; r < rows; r++)
                        for (int span = 0; span < spans; span++) {
                            int start = span_start(span, block->width);
                            vec here[SPAN];
                            UNROLL for (int c = 0; c < SPAN; c++)
                                here[c] = start + c < span * SPAN ? splat(0) : dy[r * dy_row(block) + start + c];
                            gradient_to_points(here, dy_at + o * dy_step + g * dy_group + r * spans + span,
                                               outputs * dy_step);
                        }
                }
            }
            for (int point = 0; point < POINTS; point++)
                for (int o = 0, some; o < outputs; o += some) {
                    some = together(o, outputs, PAIR_OUTPUTS);
                    for (int i = 0, few; i < inputs; i += few) {
                        few = together(i, inputs, PAIR_INPUTS);
#define PAIR(number, by)                                                                                           \
    if (number <= PAIR_OUTPUTS && by <= PAIR_INPUTS && some == number && few == by)                                \
        add_products(number, by, dy_at + (point * outputs + o) * dy_step, dy_step, dy_group,                       \
                     x_at + (point * inputs + i) * x_step, x_step, x_group, count, rows * spans, spans,            \
                     sums + point * sums_point + o * sums_step + i * TAPS, sums_step);
                        PAIR(4, 2) PAIR(4, 1) PAIR(2, 2) PAIR(2, 1) PAIR(1, 2) PAIR(1, 1)
#undef PAIR
                    }
                }
        }
    for (int o = 0; o < outputs; o++)
        for (int i = 0; i < inputs * TAPS; i++) {
            double at[POINTS];
            for (int point = 0; point < POINTS; point++) at[point] = total(sums[point * sums_point + o * sums_step + i]);
            gradient_from_points(at, block->dweight + ((ptrdiff_t)(first + o) * inputs * TAPS + i) * TAPS);
        }
}

/* ---- Convolution, either way --------------------------------------------------------------------------------- */

/* How many numbers the packed weights of one section are. */
INLINE ptrdiff_t packed_size(const Block *block, int width) {
    int taps = by_points(block->kernel, width) ? TAPS * POINTS : block->kernel * block->kernel;
    return (ptrdiff_t)section_inputs(block) * section_outputs(block) * taps;
}

/* The weights of one section in the order in which a convolution reads them: (inputs, taps, outputs), or by points
 * (some outputs, rows, inputs, points, those outputs). The gradient of the input is a convolution too, with inputs and
 * outputs exchanged and the taps in reverse. */
static void pack_section(const Block *block, int width, int backward, const float *weight, float *packed) {
    int kernel = block->kernel, taps = kernel * kernel;
    int inputs = backward ? section_outputs(block) : section_inputs(block);
    int outputs = backward ? section_inputs(block) : section_outputs(block);
#define WEIGHT(o, i, tap)                                                                                          \
    (backward ? weight[((ptrdiff_t)(i) * outputs + (o)) * taps + taps - 1 - (tap)]                                 \
              : weight[((ptrdiff_t)(o) * inputs + (i)) * taps + (tap)])
    if (!by_points(kernel, width)) {
        for (int o = 0; o < outputs; o++)
            for (int i = 0; i < inputs; i++)
                for (int tap = 0; tap < taps; tap++) packed[((ptrdiff_t)i * taps + tap) * outputs + o] = WEIGHT(o, i, tap);
        return;
    }
    for (int o = 0, count; o < outputs; o += count) {
        count = together(o, outputs, POINTS_OUTPUTS);
        float *to = packed + (ptrdiff_t)o * inputs * TAPS * POINTS;
        for (int c = 0; c < count; c++)
            for (int row = 0; row < TAPS; row++)
                for (int i = 0; i < inputs; i++)
                    weights_to_points(WEIGHT(o + c, i, row * TAPS), WEIGHT(o + c, i, row * TAPS + 1),
                                      WEIGHT(o + c, i, row * TAPS + 2),
                                      to + (ptrdiff_t)(row * inputs + i) * POINTS * count + c, count);
    }
#undef WEIGHT
}

static void pack(const Block *block, int width, int backward) {
    ptrdiff_t weights = (ptrdiff_t)section_inputs(block) * section_outputs(block) * block->kernel * block->kernel;
    for (int section = 0; section < block->sections; section++)
        pack_section(block, width, backward, block->weight + section * weights,
                     block->packed + section * packed_size(block, width));
}

static void convolve_any(int kernel, const vec *x, ptrdiff_t x_step, ptrdiff_t x_row, int border, int inputs,
                         int outputs, int height, int width, const float *weight, const float *bias, vec *y,
                         vec *scratch) {
    if (by_points(kernel, width))
        convolve_by_points(x, x_step, x_row, border, inputs, outputs, height, width, weight, bias, y, scratch);
    else if (kernel == 1)
        convolve(1, x, x_step, x_row, inputs, outputs, height, width, weight, bias, y);
    else
        convolve(3, x, x_step, x_row, inputs, outputs, height, width, weight, bias, y);
}

static void weights_gradients_any(const Block *block, int groups, vec *scratch, int thread, int threads) {
    if (by_points(block->kernel, block->width) && block->sections == 1)
        weights_gradients_by_points(block, groups, scratch, thread, threads);
    else if (block->kernel == 1)
        weights_gradients(1, block, groups, thread, threads);
    else
        weights_gradients(3, block, groups, thread, threads);
}

INLINE int dx_height(const Block *block) { return x_height(block) - 2 * block->padding; }
INLINE int dx_width(const Block *block) { return x_width(block) - 2 * block->padding; }

/* How many vectors a thread's scratch memory holds. */
size_t scratch_size(const Block *blocks, int count) {
    size_t size = 0;
    for (const Block *block = blocks; block < blocks + count; block++) {
        if (block->kernel != TAPS) continue;
        Portion portion = portion_of(block);
        size_t rows = (size_t)portion.groups * portion.rows, spans = spans_of(block->width);
        size_t forward = TAPS * block->inputs * spans, backward = TAPS * block->outputs * spans_of(dx_width(block));
        size_t weights = (size_t)block->outputs * block->inputs * TAPS + block->outputs * rows * spans +
                         block->inputs * (rows + 2 * portion.groups) * spans;
        size_t most = forward > backward ? forward : backward;
        if (weights > most) most = weights;
        if (POINTS * most > size) size = POINTS * most;
    }
    return size;
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

/* Batch norm of one channel. */
typedef struct {
    float mean, scale, shift;
} Norm;

INLINE Norm norm_of(const Block *block, int c) {
    const float *channel = block->channel + c;
    int row = block->outputs;
    return (Norm){channel[MEAN * row], channel[SCALE * row], channel[SHIFT * row]};
}

/* The activation at a position, and the factor that dropout gave it. As in PyTorch, what is not finite stays visible:
 * ReLU lets NaN through, and dropout multiplies with zero where it drops. */
INLINE vec activate(const int relu, const int drop, const Block *block, vec y, Norm norm, uint32_t position,
                    vec *factor) {
    vec v = (y - norm.mean) * norm.scale + norm.shift;
    *factor = splat(1);
    if (drop) {
        *factor = select(survives(block, position), splat(block->keep_scale), splat(0));
        v *= *factor;
    }
    return relu ? select(v <= splat(0), splat(0), v) : v;
}

/* The gradient of batch norm's result from that of the activation. */
INLINE vec activate_backward(const int relu, const int drop, vec gradient, vec activation, vec factor) {
    if (relu) gradient = select(activation <= splat(0), splat(0), gradient);
    return drop ? gradient * factor : gradient;
}

/* Whether max pooling takes this value in place of the largest so far: the first of equal ones, and the last NaN. */
INLINE mask is_larger(vec value, vec best) { return (value > best) | (value != value); }

INLINE void activate_group(const int relu, const int drop, const Block *block, int group) {
    int height = block->height, width = block->width, z_width = z_row(block);
    vec unused;
    for (int c = 0; c < block->outputs; c++) {
        Norm norm = norm_of(block, c);
        uint32_t start = (group * block->outputs + c) * height * width;
        const vec *y = y_of(block, group, c);
        vec *z = z_of(block, group, c);
#define VALUE(row, column)                                                                                         \
    activate(relu, drop, block, y[(row) * width + (column)], norm, start + (row) * width + (column), &unused)
        if (block->pool == POOL_NONE) {
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++) z[row * z_width + column] = VALUE(row, column);
        } else if (block->pool == POOL_MAX) {
            for (int row = 0; row < block->z_height; row++)
                for (int column = 0; column < block->z_width; column++) {
                    vec best = VALUE(2 * row, 2 * column);
                    UNROLL for (int corner = 1; corner < 4; corner++) {
                        vec other = VALUE(2 * row + corner / 2, 2 * column + corner % 2);
                        best = select(is_larger(other, best), other, best);
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

/* dy becomes the gradient of batch norm's result; its sum, and that of its product with y - mean, go to the group's
 * sums. */
INLINE void activate_group_backward(const int relu, const int drop, const Block *block, int group) {
    int height = block->height, width = block->width, dy_width = dy_row(block);
    for (int c = 0; c < block->outputs; c++) {
        Norm norm = norm_of(block, c);
        uint32_t start = (group * block->outputs + c) * height * width;
        const vec *y = y_of(block, group, c), *dz = dz_of(block, group, c);
        vec *dy = dy_of(block, group, c);
        vec sum = splat(0), product = splat(0);
#define ADD(row, column, gradient)                                                                                 \
    {                                                                                                              \
        vec g = gradient;                                                                                          \
        dy[(row) * dy_width + (column)] = g;                                                                       \
        sum += g;                                                                                                  \
        product += g * (y[(row) * width + (column)] - norm.mean);                                                       \
    }
        if (block->pool == POOL_MAX) {
            /* An odd last row or column is in no window. */
            for (int row = 0; row < height; row++)
                for (int column = row < 2 * block->z_height ? 2 * block->z_width : 0; column < width; column++)
                    dy[row * dy_width + column] = splat(0);
            for (int row = 0; row < block->z_height; row++)
                for (int column = 0; column < block->z_width; column++) {
                    vec value[4], factor[4], best;
                    mask chosen = {0};
                    UNROLL for (int corner = 0; corner < 4; corner++) {
                        int position = (2 * row + corner / 2) * width + 2 * column + corner % 2;
                        value[corner] =
                            activate(relu, drop, block, y[position], norm, start + position, &factor[corner]);
                        mask larger = corner ? is_larger(value[corner], best) : ~(mask){0};
                        best = corner ? select(larger, value[corner], best) : value[corner];
                        chosen = (larger & corner) | (~larger & chosen);
                    }
                    UNROLL for (int corner = 0; corner < 4; corner++) {
                        vec gradient = select(chosen == corner, dz[row * block->z_width + column], splat(0));
                        ADD(2 * row + corner / 2, 2 * column + corner % 2,
                            activate_backward(relu, drop, gradient, value[corner], factor[corner]));
                    }
                }
        } else {
            vec share = *dz / splat(height * width);
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++) {
                    int position = row * width + column;
                    vec factor, value = activate(relu, drop, block, y[position], norm, start + position, &factor);
                    vec gradient = block->pool == POOL_NONE ? dz[position] : share;
                    ADD(row, column, activate_backward(relu, drop, gradient, value, factor));
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

/* How many values a group has in each channel. */
INLINE double group_count(const Block *block, int group, int images) {
    return (double)least(LANES, images - group * LANES) * block->height * block->width;
}

/* Each channel's sum, and sum of squares around the group's mean. */
static void sum_group(const Block *block, int group, int images) {
    int size = block->height * block->width;
    double count = group_count(block, group, images);
    mask used = lanes_in_use(group, images);
    for (int c = 0; c < block->outputs; c++) {
        const vec *y = y_of(block, group, c);
        /* From a point among the values: the squares, a difference of two sums, then lose little. */
        float near = y[size / 2][0];
        vec sum = splat(0), square = splat(0);
        for (int i = 0; i < size; i++) {
            vec distance = y[i] - near;
            sum += distance;
            square += distance * distance;
        }
        double away = total(select(used, sum, splat(0))), squares = total(select(used, square, splat(0)));
        block->sums[(group * block->outputs + c) * 2] = away + near * count;
        block->sums[(group * block->outputs + c) * 2 + 1] = squares - away * away / count;
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

/* Mean and variance of a channel over the batch. */
INLINE void batch_statistics(const Block *block, int groups, int images, int c, double *mean, double *variance) {
    double count = (double)images * block->height * block->width, squares;
    add_groups(block, groups, c, mean, &squares);
    *mean /= count;
    for (int group = 0; group < groups; group++) {
        double here = group_count(block, group, images);
        double apart = block->sums[(group * block->outputs + c) * 2] / here - *mean;
        squares += here * apart * apart;
    }
    /* fmax would turn NaN into 0. */
    *variance = squares < 0 ? 0 : squares / count;
}

/* Each channel's batch norm: by the batch's own statistics, which the running ones follow, or by the running ones. */
static void fold_norm(const Block *block, int groups, int images, int training) {
    double count = (double)images * block->height * block->width;
    for (int c = 0; c < block->outputs; c++) {
        float *channel = block->channel + c;
        int row = block->outputs;
        if (!block->norm) {
            channel[SCALE * row] = 1;
            channel[MEAN * row] = channel[SHIFT * row] = 0;
            continue;
        }
        double mean = block->running_mean[c], variance = block->running_var[c];
        if (training) {
            batch_statistics(block, groups, images, c, &mean, &variance);
            block->running_mean[c] += block->momentum * ((float)mean - block->running_mean[c]);
            block->running_var[c] += block->momentum * ((float)(variance * count / (count - 1)) - block->running_var[c]);
        }
        double inverse = 1 / sqrt(variance + block->epsilon);
        channel[MEAN * row] = mean;
        channel[INVERSE * row] = inverse;
        channel[SCALE * row] = block->gamma[c] * inverse;
        channel[SHIFT * row] = block->beta[c];
    }
}

/* Gradients of gamma, beta and bias; and what makes the gradient of y out of dy. */
static void fold_norm_backward(const Block *block, int groups, int images) {
    double count = (double)images * block->height * block->width;
    for (int c = 0; c < block->outputs; c++) {
        float *channel = block->channel + c;
        int row = block->outputs;
        double sum, product;
        add_groups(block, groups, c, &sum, &product);
        if (!block->norm) {
            if (block->dbias) block->dbias[c] = sum;
            continue;
        }
        double inverse = channel[INVERSE * row];
        double projected = product * inverse;
        block->dbeta[c] = sum;
        block->dgamma[c] = projected;
        /* Batch norm takes the mean away again: 0, or NaN where the gradient is not finite. */
        if (block->dbias) block->dbias[c] = (sum - sum) + (projected - projected);
        channel[DY_MEAN * row] = sum / count;
        channel[SLOPE * row] = inverse * projected / count;
    }
}

static void norm_group_backward(const Block *block, int group, int images) {
    int width = block->width, dy_width = dy_row(block);
    mask used = lanes_in_use(group, images);
    for (int c = 0; c < block->outputs; c++) {
        Norm norm = norm_of(block, c);
        float dy_mean = block->channel[DY_MEAN * block->outputs + c], slope = block->channel[SLOPE * block->outputs + c];
        const vec *y = y_of(block, group, c);
        vec *dy = dy_of(block, group, c);
        for (int row = 0; row < block->height; row++)
            for (int column = 0; column < width; column++) {
                vec g = dy[row * dy_width + column] - dy_mean - (y[row * width + column] - norm.mean) * slope;
                dy[row * dy_width + column] = select(used, g * norm.scale, splat(0));
            }
    }
}

/* ---- The whole network --------------------------------------------------------------------------------------- */

static void convolve_group(const Block *block, int group, vec *scratch) {
    int inputs = section_inputs(block), outputs = section_outputs(block);
    for (int section = 0; section < block->sections; section++)
        convolve_any(block->kernel, x_of(block, group, section * inputs), x_channel(block), x_width(block),
                     block->padding, inputs, outputs, block->height, block->width,
                     block->packed + section * packed_size(block, block->width),
                     block->bias ? block->bias + section * outputs : 0, y_of(block, group, section * outputs), scratch);
}

/* In training, or as a trained network is used: running statistics, no dropout. */
void forward(const Block *blocks, int count, int images, int training, Barrier *barrier, vec *scratch, int thread,
             int threads) {
    const Block *end = blocks + count;
    int groups = (images + LANES - 1) / LANES;
    int first = part(groups, thread, threads), last = part(groups, thread + 1, threads);
    /* Batch norm by the statistics of all groups: a group goes on when all have come so far. */
#define WAITS(block) ((block)->norm && training)
    if (thread == 0)
        for (const Block *block = blocks; block < end; block++) {
            pack(block, block->width, 0);
            if (!WAITS(block)) fold_norm(block, groups, images, training);
        }
    wait_for_all(barrier, threads);
    for (const Block *from = blocks, *to; from < end; from = to) {
        for (to = from + 1; to < end && !WAITS(to - 1);) to++;
        for (int group = first; group < last; group++) {
            if (from > blocks) activate_any(from - 1, training, group);
            for (const Block *block = from; block < to; block++) {
                convolve_group(block, group, scratch);
                if (WAITS(block))
                    sum_group(block, group, images);
                else
                    activate_any(block, training, group);
            }
        }
        if (!WAITS(to - 1)) continue;
        wait_for_all(barrier, threads);
        if (thread == 0) fold_norm(to - 1, groups, images, training);
        wait_for_all(barrier, threads);
    }
    if (WAITS(end - 1))
        for (int group = first; group < last; group++) activate_any(end - 1, training, group);
#undef WAITS
}

static void input_gradient_group(const Block *block, int group, vec *scratch) {
    /* The border of dy that takes part; a convolution that pads more than its kernel needs has results in which no
     * input takes part. */
    int border = block->kernel - 1 - block->padding;
    ptrdiff_t dx_channel = (ptrdiff_t)dx_height(block) * dx_width(block);
    int inputs = section_inputs(block), outputs = section_outputs(block);
    for (int section = 0; section < block->sections; section++)
        convolve_any(block->kernel, dy_of(block, group, section * outputs) - border * (dy_row(block) + 1),
                     dy_channel(block), dy_row(block), border, outputs, inputs, dx_height(block), dx_width(block),
                     block->packed + section * packed_size(block, dx_width(block)), 0,
                     (vec *)block->dx + ((ptrdiff_t)group * block->inputs + section * inputs) * dx_channel, scratch);
}

/* From the gradient of the last block's z to those of all parameters, after a forward pass in training. */
void backward(const Block *blocks, int count, int images, Barrier *barrier, vec *scratch, int thread, int threads) {
    int groups = (images + LANES - 1) / LANES;
    int first = part(groups, thread, threads), last = part(groups, thread + 1, threads);
    if (thread == 0)
        for (const Block *block = blocks + 1; block < blocks + count; block++) pack(block, dx_width(block), 1);
    for (int group = first; group < last; group++) activate_any_backward(blocks + count - 1, group);
    wait_for_all(barrier, threads);
    for (const Block *block = blocks + count - 1; block >= blocks; block--) {
        if (thread == 0) fold_norm_backward(block, groups, images);
        wait_for_all(barrier, threads);
        for (int group = first; group < last; group++) {
            if (block->norm) norm_group_backward(block, group, images);
            if (block == blocks) continue;
            input_gradient_group(block, group, scratch);
            activate_any_backward(block - 1, group);
        }
        wait_for_all(barrier, threads);
        weights_gradients_any(block, groups, scratch, thread, threads);
    }
}
