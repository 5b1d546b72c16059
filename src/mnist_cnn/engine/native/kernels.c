/* CPU kernels for small convolutional networks: forward and backward pass in float32.
 *
 * Blocks. A network is a sequence of blocks. A block is a convolution (1x1 or 3x3, stride 1), then batch norm,
 * dropout, ReLU and pooling, each of the four optional. Its tensors are x, the input; y, the output of the
 * convolution; and z, the output of the block, which is the x of the next one. dx, dy and dz are the gradients of the
 * loss with respect to them. network.py allocates all memory and fills the Block structures.
 *
 * Memory layout. A batch is cut into lane blocks of 16 images, and a tensor is stored as (lane blocks, channels,
 * height, width, 16). A vector thus holds one position of 16 images, one image in each lane. All loads and stores are
 * whole vectors, whatever the width of a map, and convolution is direct: there is no im2col. Padding is stored as
 * zeros around x, z and dy, so loops have no special cases at the borders. Strides and offsets count vectors.
 *
 * Threads. Each thread computes its share of the lane blocks. Weight gradients are sums over all lane blocks; there
 * each thread computes its share of the channels. Threads meet at a barrier where one reads what another wrote.
 *
 * Reproducibility. The order of every sum depends neither on the number of threads nor on the width of the machine's
 * vectors: the same inputs give the same bits.
 */
#include <math.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

enum { LANES = 16 };
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t vec_mask __attribute__((vector_size(4 * LANES)));
typedef uint32_t vec_bits __attribute__((vector_size(4 * LANES)));

/* Functions with `const int` parameters are templates: inlined with constant arguments, their loops unroll and their
 * arrays of accumulators become registers. */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")

/* Sizes of the register tiles: how many sums a kernel keeps in registers. More sums mean fewer loads for each
 * multiplication. AVX-512 has 32 registers of one vec each. Up to 27 hold sums here, the others hold operands.
 * Elsewhere a vec takes two or four registers, and tiles are small. */
#if defined(__AVX512F__)
enum { DIRECT_CHANNELS = 6, DIRECT_COLUMNS = 4 };             /* 24 sums: output channels by columns */
enum { DIRECT_GRADIENT_CHANNELS = 3 };                        /* 27 sums: output channels by 3x3 taps */
enum { WINOGRAD_CHANNELS = 4 };                               /* 24 sums: output channels by 6 points */
enum { WINOGRAD_GRADIENT_OUT = 4, WINOGRAD_GRADIENT_IN = 2 }; /* 24 sums: output by input channels by kernel rows */
#else
enum { DIRECT_CHANNELS = 2, DIRECT_COLUMNS = 2 };
enum { DIRECT_GRADIENT_CHANNELS = 1 };
enum { WINOGRAD_CHANNELS = 1 };
enum { WINOGRAD_GRADIENT_OUT = 2, WINOGRAD_GRADIENT_IN = 1 };
#endif

/* network.py declares the same fields in the same order. */
typedef struct {
    /* The convolution, its output y, and what follows it. */
    int32_t in_channels, out_channels, kernel_size, padding, groups;
    int32_t y_height, y_width, has_norm, has_relu, pool;
    /* The size of z without padding, and the zeros on each side of z and dy. */
    int32_t z_height, z_width, z_padding, dy_padding;
    /* Dropout: a random number below the threshold drops a value, all others are multiplied by the scale. */
    uint32_t dropout_threshold;
    float dropout_scale, epsilon, momentum;
    uint64_t dropout_key;
    const float *weight, *bias, *gamma, *beta;
    float *running_mean, *running_var;
    float *x, *y, *z, *dz, *dy, *dx;
    float *dweight, *dbias, *dgamma, *dbeta;
    /* packed_weight: the weights in the order in which the current pass reads them. norm_terms: (NormTerm,
     * out_channels). partial_sums: two sums for batch norm, (lane blocks, out_channels, 2). */
    float *packed_weight, *norm_terms;
    double *partial_sums;
} Block;

enum { POOL_NONE, POOL_MAX, POOL_AVERAGE };

/* Batch norm is (y - MEAN) * SCALE + SHIFT. Its backward pass turns g, the gradient of that, into the gradient of y:
 * (g - GRADIENT_MEAN - (y - MEAN) * SLOPE) * SCALE. */
enum NormTerm { MEAN, SCALE, SHIFT, GRADIENT_MEAN, SLOPE, INVERSE_STD };

/* `abandoned` releases all threads where one will never arrive; what they then compute is not used. */
typedef struct {
    int32_t arrived, phase, abandoned;
} Barrier;

typedef struct {
    int first, end;
} Range;

size_t block_size(void) { return sizeof(Block); }

/* ---- Threads, vectors, numbers ------------------------------------------------------------------------------- */

static void wait_for_all(Barrier *barrier, int threads) {
    if (threads == 1) return;
    int32_t phase = __atomic_load_n(&barrier->phase, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        barrier->arrived = 0;
        __atomic_store_n(&barrier->phase, phase + 1, __ATOMIC_RELEASE);
        return;
    }
    /* 4000 checks take some microseconds, in which the others usually arrive. If not, they may need this core. */
    for (int spins = 0; __atomic_load_n(&barrier->phase, __ATOMIC_ACQUIRE) == phase; spins++) {
        if (__atomic_load_n(&barrier->abandoned, __ATOMIC_ACQUIRE)) return;
        if (spins > 4000) sched_yield();
    }
}

/* A thread's share of `count` items. */
INLINE Range share_of(int count, int thread, int threads) {
    return (Range){(int64_t)count * thread / threads, (int64_t)count * (thread + 1) / threads};
}

INLINE vec broadcast(float value) { return (vec){0} + value; }
INLINE vec select(vec_mask choose, vec yes, vec no) {
    return (vec)((choose & (vec_mask)yes) | (~choose & (vec_mask)no));
}

/* The sum of all lanes, by halves: the same order on every machine. */
INLINE double lane_sum(vec v) {
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    return v[0];
}

INLINE int lane_blocks_of(int images) { return (images + LANES - 1) / LANES; }

/* The lanes that hold an image of the batch: not all of the last lane block. */
INLINE vec_mask lanes_in_use(int lane_block, int images) {
    vec_mask image;
    for (int i = 0; i < LANES; i++) image[i] = lane_block * LANES + i;
    return image < images;
}

INLINE int min_int(int a, int b) { return a < b ? a : b; }
INLINE int max_int(int a, int b) { return a > b ? a : b; }

/* ---- Sizes, strides and addresses of a block's tensors ------------------------------------------------------- */

INLINE int x_height(const Block *block) { return block->y_height + block->kernel_size - 1; }
INLINE int x_width(const Block *block) { return block->y_width + block->kernel_size - 1; }
INLINE int dx_height(const Block *block) { return x_height(block) - 2 * block->padding; }
INLINE int dx_width(const Block *block) { return x_width(block) - 2 * block->padding; }
INLINE int z_row_stride(const Block *block) { return block->z_width + 2 * block->z_padding; }
INLINE int dy_row_stride(const Block *block) { return block->y_width + 2 * block->dy_padding; }

INLINE ptrdiff_t x_channel_stride(const Block *block) { return (ptrdiff_t)x_height(block) * x_width(block); }
INLINE ptrdiff_t dx_channel_stride(const Block *block) { return (ptrdiff_t)dx_height(block) * dx_width(block); }
INLINE ptrdiff_t y_channel_stride(const Block *block) { return (ptrdiff_t)block->y_height * block->y_width; }
INLINE ptrdiff_t dy_channel_stride(const Block *block) {
    return (ptrdiff_t)(block->y_height + 2 * block->dy_padding) * dy_row_stride(block);
}
INLINE ptrdiff_t z_channel_stride(const Block *block) {
    return (ptrdiff_t)(block->z_height + 2 * block->z_padding) * z_row_stride(block);
}
INLINE ptrdiff_t dz_channel_stride(const Block *block) { return (ptrdiff_t)block->z_height * block->z_width; }

/* A channel of a lane block: of x the first position of the padding, of z and dy the first one inside it. */
INLINE const vec *x_at(const Block *block, int lane_block, int channel) {
    return (const vec *)block->x + ((ptrdiff_t)lane_block * block->in_channels + channel) * x_channel_stride(block);
}
INLINE vec *dx_at(const Block *block, int lane_block, int channel) {
    return (vec *)block->dx + ((ptrdiff_t)lane_block * block->in_channels + channel) * dx_channel_stride(block);
}
INLINE vec *y_at(const Block *block, int lane_block, int channel) {
    return (vec *)block->y + ((ptrdiff_t)lane_block * block->out_channels + channel) * y_channel_stride(block);
}
INLINE vec *dy_at(const Block *block, int lane_block, int channel) {
    return (vec *)block->dy + ((ptrdiff_t)lane_block * block->out_channels + channel) * dy_channel_stride(block) +
           block->dy_padding * (dy_row_stride(block) + 1);
}
INLINE vec *z_at(const Block *block, int lane_block, int channel) {
    return (vec *)block->z + ((ptrdiff_t)lane_block * block->out_channels + channel) * z_channel_stride(block) +
           block->z_padding * (z_row_stride(block) + 1);
}
INLINE const vec *dz_at(const Block *block, int lane_block, int channel) {
    return (const vec *)block->dz + ((ptrdiff_t)lane_block * block->out_channels + channel) * dz_channel_stride(block);
}
INLINE double *partial_sums_at(const Block *block, int lane_block, int channel) {
    return block->partial_sums + ((ptrdiff_t)lane_block * block->out_channels + channel) * 2;
}

INLINE int group_in_channels(const Block *block) { return block->in_channels / block->groups; }
INLINE int group_out_channels(const Block *block) { return block->out_channels / block->groups; }

/* One group's convolution of one lane block. x, which contains the padding, may be a part of a larger map: it has
 * strides of its own. y is (out_channels, height, width). */
typedef struct {
    int in_channels, out_channels, height, width;
    const vec *x;
    ptrdiff_t x_channel_stride, x_row_stride;
    int padding; /* This many first and last rows of x are zeros. */
    const float *weight, *bias;
    vec *y;
} Convolution;

/* ---- Direct convolution -------------------------------------------------------------------------------------- */

/* A register tile: some columns of a row, of some output channels. weight is (in_channels, taps, out_channels), so
 * that the weights of neighbouring output channels lie side by side. */
INLINE void direct_tile(const int channels, const int columns, const int kernel_size, const Convolution *conv,
                        int channel, int row, int column) {
    const vec *x = conv->x + row * conv->x_row_stride + column;
    const float *bias = conv->bias ? conv->bias + channel : 0;
    vec sum[DIRECT_CHANNELS][DIRECT_COLUMNS];
    UNROLL for (int o = 0; o < channels; o++)
        UNROLL for (int c = 0; c < columns; c++) sum[o][c] = broadcast(bias ? bias[o] : 0);
    for (int i = 0; i < conv->in_channels; i++)
        for (int tap_row = 0; tap_row < kernel_size; tap_row++)
            for (int tap_column = 0; tap_column < kernel_size; tap_column++) {
                const vec *input = x + i * conv->x_channel_stride + tap_row * conv->x_row_stride + tap_column;
                int tap = (i * kernel_size + tap_row) * kernel_size + tap_column;
                const float *weight = conv->weight + (ptrdiff_t)tap * conv->out_channels + channel;
                vec here[DIRECT_COLUMNS];
                UNROLL for (int c = 0; c < columns; c++) here[c] = input[c];
                UNROLL for (int o = 0; o < channels; o++)
                    UNROLL for (int c = 0; c < columns; c++) sum[o][c] += here[c] * weight[o];
            }
    ptrdiff_t y_channel = (ptrdiff_t)conv->height * conv->width;
    vec *y = conv->y + channel * y_channel + row * conv->width + column;
    UNROLL for (int o = 0; o < channels; o++)
        UNROLL for (int c = 0; c < columns; c++) y[o * y_channel + c] = sum[o][c];
}

/* All output channels of some columns: as many large tiles as fit, then smaller ones. */
INLINE void direct_columns(const int columns, const int kernel_size, const Convolution *conv, int row, int column) {
    int channel = 0;
#define TILES(channels)                                                                                            \
    for (; channels <= DIRECT_CHANNELS && channel + channels <= conv->out_channels; channel += channels)           \
        direct_tile(channels, columns, kernel_size, conv, channel, row, column);
    TILES(6) TILES(4) TILES(2) TILES(1)
#undef TILES
}

INLINE void convolve_direct(const int kernel_size, const Convolution *conv) {
    for (int row = 0; row < conv->height; row++) {
        int column = 0;
#define TILES(columns)                                                                                             \
    for (; columns <= DIRECT_COLUMNS && column + columns <= conv->width; column += columns)                        \
        direct_columns(columns, kernel_size, conv, row, column);
        TILES(4) TILES(2) TILES(1)
#undef TILES
    }
}

/* The gradient of the weights from one input channel to some output channels, over all lane blocks. Output channels
 * are `stride` apart in dweight. */
INLINE void direct_gradient_tile(const int channels, const int kernel_size, const Block *block, int lane_blocks,
                                 int out_channel, int in_channel, float *dweight, ptrdiff_t stride) {
    int x_row = x_width(block), dy_row = dy_row_stride(block);
    ptrdiff_t dy_channel = dy_channel_stride(block);
    vec sum[DIRECT_GRADIENT_CHANNELS][9];
    UNROLL for (int o = 0; o < channels; o++)
        UNROLL for (int tap = 0; tap < kernel_size * kernel_size; tap++) sum[o][tap] = broadcast(0);
    for (int lane_block = 0; lane_block < lane_blocks; lane_block++) {
        const vec *x = x_at(block, lane_block, in_channel), *dy = dy_at(block, lane_block, out_channel);
        for (int row = 0; row < block->y_height; row++)
            for (int column = 0; column < block->y_width; column++) {
                vec gradient[DIRECT_GRADIENT_CHANNELS];
                UNROLL for (int o = 0; o < channels; o++) gradient[o] = dy[o * dy_channel + row * dy_row + column];
                UNROLL for (int tap = 0; tap < kernel_size * kernel_size; tap++) {
                    vec input = x[(row + tap / kernel_size) * x_row + column + tap % kernel_size];
                    UNROLL for (int o = 0; o < channels; o++) sum[o][tap] += input * gradient[o];
                }
            }
    }
    UNROLL for (int o = 0; o < channels; o++)
        UNROLL for (int tap = 0; tap < kernel_size * kernel_size; tap++)
            dweight[o * stride + tap] = lane_sum(sum[o][tap]);
}

/* Threads share the output channels. A group may have a single one, so tiles have one. */
INLINE void direct_gradient_of_groups(const int kernel_size, const Block *block, int lane_blocks, int thread,
                                      int threads) {
    int in_channels = group_in_channels(block), out_channels = group_out_channels(block);
    int taps = kernel_size * kernel_size;
    ptrdiff_t stride = in_channels * taps;
    Range mine = share_of(block->out_channels, thread, threads);
    for (int o = mine.first; o < mine.end; o++)
        for (int i = 0; i < in_channels; i++)
            direct_gradient_tile(1, kernel_size, block, lane_blocks, o, o / out_channels * in_channels + i,
                                 block->dweight + o * stride + i * taps, stride);
}

/* Threads share the pairs of an input channel and a tile of output channels. */
INLINE void direct_gradient_of_all(const int kernel_size, const Block *block, int lane_blocks, int thread,
                                   int threads) {
    enum { CHANNELS = DIRECT_GRADIENT_CHANNELS };
    int taps = kernel_size * kernel_size, tiles = (block->out_channels + CHANNELS - 1) / CHANNELS;
    ptrdiff_t stride = block->in_channels * taps;
    Range mine = share_of(tiles * block->in_channels, thread, threads);
    for (int pair = mine.first; pair < mine.end; pair++) {
        int i = pair / tiles, o = pair % tiles * CHANNELS;
        float *dweight = block->dweight + o * stride + i * taps;
        if (o + CHANNELS <= block->out_channels)
            direct_gradient_tile(CHANNELS, kernel_size, block, lane_blocks, o, i, dweight, stride);
        else
            for (; o < block->out_channels; o++, dweight += stride)
                direct_gradient_tile(1, kernel_size, block, lane_blocks, o, i, dweight, stride);
    }
}

INLINE void direct_weight_gradient(const int kernel_size, const Block *block, int lane_blocks, int thread,
                                   int threads) {
    if (block->groups > 1)
        direct_gradient_of_groups(kernel_size, block, lane_blocks, thread, threads);
    else
        direct_gradient_of_all(kernel_size, block, lane_blocks, thread, threads);
}

/* ---- Winograd convolution: the transforms -------------------------------------------------------------------- */

/* Winograd's F(4, 3) computes 4 neighbouring outputs of a filter of 3 taps with 6 multiplications instead of 12.
 * Source: "Fast Algorithms for Convolutional Neural Networks", 2015, https://arxiv.org/abs/1509.09308
 *
 * A tile is 6 neighbouring inputs d, from which come 4 neighbouring outputs A^T [(G g) * (B^T d)] for the taps g. B^T
 * is the input transform, G the filter transform, A^T the output transform, and the product is elementwise. Inputs and
 * taps are seen as polynomials: the transforms evaluate them at the 6 points 0, 1, -1, 2, -2 and infinity, and
 * interpolate the product.
 *
 *           4  0 -5  0  1  0             6   0   0
 *           0 -4 -4  1  1  0            -4  -4  -4            1  1  1  1  1  0
 *     B^T = 0  4 -4 -1  1  0   24 * G = -4   4  -4      A^T = 0  1 -1  2 -2  0
 *           0 -2 -1  2  1  0             1   2   4            0  1  1  4  4  0
 *           0  2 -1 -2  1  0             1  -2   4            0  1 -1  8 -8  1
 *           0  4  0 -5  0  1             0   0  24
 *
 * The algorithm is used along the rows only: a tile is one row high. The products of the three kernel rows are added
 * up before the output transform. Tiles begin at every fourth column; where 4 does not divide the width, the last tile
 * moves to the left and overlaps the one before it. */
enum { TILE = 4, POINTS = 6, TAPS = 3 };

INLINE int uses_winograd(int kernel_size, int width) { return kernel_size == TAPS && width >= TILE; }
INLINE int tiles_of(int width) { return (width + TILE - 1) / TILE; }
INLINE int tile_start(int tile, int width) { return min_int(tile * TILE, width - TILE); }

/* In the transforms of vectors all factors are powers of two, whose products are exact: whether or not the compiler
 * fuses a multiplication with an addition, the result has the same bits. */

/* Input transform: B^T x goes to `at`. The values at two points are `stride` apart. */
INLINE void transform_input(const vec *x, vec *at, ptrdiff_t stride) {
    vec even_1 = x[4] - 4 * x[2], odd_1 = x[3] - 4 * x[1];
    vec even_2 = x[4] - x[2], odd_2 = 2 * (x[3] - x[1]);
    at[0 * stride] = even_2 + 4 * (x[0] - x[2]);
    at[1 * stride] = even_1 + odd_1;
    at[2 * stride] = even_1 - odd_1;
    at[3 * stride] = even_2 + odd_2;
    at[4 * stride] = even_2 - odd_2;
    at[5 * stride] = x[5] - x[3] + 4 * (x[1] - x[3]);
}

/* Filter transform, G w: in double precision, so that only its results are rounded to float32. */
INLINE void transform_filter(double w0, double w1, double w2, float *at, ptrdiff_t stride) {
    at[0 * stride] = w0 / 4;
    at[1 * stride] = -(w0 + w1 + w2) / 6;
    at[2 * stride] = -(w0 - w1 + w2) / 6;
    at[3 * stride] = (w0 + 2 * w1 + 4 * w2) / 24;
    at[4 * stride] = (w0 - 2 * w1 + 4 * w2) / 24;
    at[5 * stride] = w2;
}

/* Output transform, A^T at. */
INLINE void transform_output(const vec *at, float bias, vec *y) {
    vec sum_1 = at[1] + at[2], difference_1 = at[1] - at[2], sum_2 = at[3] + at[4], difference_2 = at[3] - at[4];
    y[0] = at[0] + sum_1 + sum_2 + bias;
    y[1] = difference_1 + 2 * difference_2 + bias;
    y[2] = sum_1 + 4 * sum_2 + bias;
    y[3] = difference_1 + 8 * difference_2 + at[5] + bias;
}

/* The gradient of the taps is G^T [(A dy) * (B^T x)]. Here is A dy ... */
INLINE void transform_output_gradient(const vec dy[TILE], vec *at, ptrdiff_t stride) {
    vec even_1 = dy[0] + dy[2], odd_1 = dy[1] + dy[3];
    vec even_2 = dy[0] + 4 * dy[2], odd_2 = 2 * dy[1] + 8 * dy[3];
    at[0 * stride] = dy[0];
    at[1 * stride] = even_1 + odd_1;
    at[2 * stride] = even_1 - odd_1;
    at[3 * stride] = even_2 + odd_2;
    at[4 * stride] = even_2 - odd_2;
    at[5 * stride] = dy[3];
}

/* ... and here G^T at. */
INLINE void transform_filter_gradient(const double at[POINTS], float *dweight) {
    double sum_1 = (at[1] + at[2]) / 6, sum_2 = at[3] + at[4];
    dweight[0] = at[0] / 4 - sum_1 + sum_2 / 24;
    dweight[1] = (at[2] - at[1]) / 6 + (at[3] - at[4]) / 12;
    dweight[2] = sum_2 / 6 - sum_1 + at[5];
}

/* ---- Winograd convolution: forward --------------------------------------------------------------------------- */

/* The size of the channel block that begins at a channel: the channels that are computed together. */
INLINE int channel_block_size(int channel, int channels, int largest) {
    int size = largest;
    while (size > channels - channel) size /= 2;
    return size;
}

/* A channel block of one tile. rows: for each kernel row the transformed inputs, (in_channels, tiles, points) from
 * this tile on; weight: (kernel rows, in_channels, points, channels). Kernel rows outside the range meet padding. */
INLINE void winograd_tile(const int channels, const vec *const rows[TAPS], Range kernel_rows, ptrdiff_t channel_stride,
                          int in_channels, const float *weight, const float *bias, vec *y, ptrdiff_t y_channel) {
    vec sum[WINOGRAD_CHANNELS][POINTS];
    UNROLL for (int o = 0; o < channels; o++)
        UNROLL for (int point = 0; point < POINTS; point++) sum[o][point] = broadcast(0);
    for (int row = kernel_rows.first; row < kernel_rows.end; row++)
        for (int i = 0; i < in_channels; i++) {
            const vec *at = rows[row] + i * channel_stride;
            const float *w = weight + (ptrdiff_t)(row * in_channels + i) * POINTS * channels;
            UNROLL for (int point = 0; point < POINTS; point++) {
                vec here = at[point];
                UNROLL for (int o = 0; o < channels; o++) sum[o][point] += here * w[point * channels + o];
            }
        }
    UNROLL for (int o = 0; o < channels; o++) transform_output(sum[o], bias ? bias[o] : 0, y + o * y_channel);
}

/* One row of y. Row r of x lies transformed in slot r % 3 of `ring`. */
INLINE void winograd_row(const Convolution *conv, int row, const vec *ring) {
    int tiles = tiles_of(conv->width);
    ptrdiff_t channel_stride = tiles * POINTS, slot = conv->in_channels * channel_stride;
    ptrdiff_t y_channel = (ptrdiff_t)conv->height * conv->width;
    int padding_below = conv->height + TAPS - 1 - conv->padding;
    Range kernel_rows = {max_int(0, conv->padding - row), min_int(TAPS, padding_below - row)};
    for (int tile = 0; tile < tiles; tile++) {
        const vec *rows[TAPS];
        for (int tap = 0; tap < TAPS; tap++) rows[tap] = ring + (row + tap) % TAPS * slot + tile * POINTS;
        vec *y = conv->y + row * conv->width + tile_start(tile, conv->width);
        for (int o = 0, size; o < conv->out_channels; o += size) {
            size = channel_block_size(o, conv->out_channels, WINOGRAD_CHANNELS);
            const float *weight = conv->weight + (ptrdiff_t)o * conv->in_channels * TAPS * POINTS;
            const float *bias = conv->bias ? conv->bias + o : 0;
#define CHANNELS(channels)                                                                                         \
    if (channels <= WINOGRAD_CHANNELS && size == channels)                                                         \
        winograd_tile(channels, rows, kernel_rows, channel_stride, conv->in_channels, weight, bias,                \
                      y + o * y_channel, y_channel);
            CHANNELS(4) CHANNELS(2) CHANNELS(1)
#undef CHANNELS
        }
    }
}

/* Each row of x is transformed once, and kept as long as one of the three rows of y that read it is to come. Rows of
 * padding are neither transformed nor read. scratch: a ring of three rows, each (in_channels, tiles, points). */
static void convolve_winograd(const Convolution *conv, vec *scratch) {
    int tiles = tiles_of(conv->width), rows = conv->height + TAPS - 1;
    ptrdiff_t channel_stride = tiles * POINTS;
    for (int row = 0; row < rows; row++) {
        vec *slot = scratch + row % TAPS * conv->in_channels * channel_stride;
        if (row >= conv->padding && row < rows - conv->padding)
            for (int i = 0; i < conv->in_channels; i++) {
                const vec *x = conv->x + i * conv->x_channel_stride + row * conv->x_row_stride;
                for (int tile = 0; tile < tiles; tile++)
                    transform_input(x + tile_start(tile, conv->width), slot + i * channel_stride + tile * POINTS, 1);
            }
        if (row >= TAPS - 1) winograd_row(conv, row - TAPS + 1, scratch);
    }
}

/* ---- Winograd convolution: the gradient of the weights ------------------------------------------------------- */

/* The gradient is summed chunk by chunk: some rows of a large map, or all rows of a small map in some lane blocks. A
 * chunk has about 64 tiles. Then each load and store of the sums pays for 64 additions, and one channel at one point
 * takes 4 KiB, so that all channels at one point stay in the level-2 cache. */
typedef struct {
    int rows, lane_blocks;
} Chunk;

INLINE Chunk chunk_of(const Block *block) {
    enum { CHUNK_TILES = 64 };
    int tiles = tiles_of(block->y_width) * block->y_height, chunks = (tiles + CHUNK_TILES - 1) / CHUNK_TILES;
    return (Chunk){(block->y_height + chunks - 1) / chunks, max_int(1, CHUNK_TILES / tiles)};
}

/* A thread's scratch memory. `dy` and the sums have those output channels that this thread computes.
 *     sums: (points, out_channels, in_channels, kernel rows)
 *     x:    (points, in_channels, lane blocks, rows + 2, tiles), transformed; a chunk of it
 *     dy:   (points, out_channels, lane blocks, rows, tiles), transformed; a chunk of it */
typedef struct {
    const Block *block;
    Chunk chunk;
    int first_out_channel, out_channels, in_channels, tiles;
    int x_lane_block_stride, dy_lane_block_stride;
    ptrdiff_t sums_channel_stride, x_channel_stride, dy_channel_stride;
    ptrdiff_t sums_point_stride, x_point_stride, dy_point_stride;
    vec *sums, *x, *dy;
} GradientScratch;

INLINE GradientScratch gradient_scratch(const Block *block, Range out_channels, vec *memory) {
    GradientScratch s = {.block = block, .chunk = chunk_of(block), .tiles = tiles_of(block->y_width)};
    s.first_out_channel = out_channels.first;
    s.out_channels = out_channels.end - out_channels.first;
    s.in_channels = block->in_channels;
    s.x_lane_block_stride = (s.chunk.rows + TAPS - 1) * s.tiles;
    s.dy_lane_block_stride = s.chunk.rows * s.tiles;
    s.sums_channel_stride = s.in_channels * TAPS;
    s.x_channel_stride = s.chunk.lane_blocks * s.x_lane_block_stride;
    s.dy_channel_stride = s.chunk.lane_blocks * s.dy_lane_block_stride;
    s.sums_point_stride = s.out_channels * s.sums_channel_stride;
    s.x_point_stride = s.in_channels * s.x_channel_stride;
    s.dy_point_stride = s.out_channels * s.dy_channel_stride;
    s.sums = memory;
    s.x = s.sums + POINTS * s.sums_point_stride;
    s.dy = s.x + POINTS * s.x_point_stride;
    return s;
}

/* Transform some rows of x, and the two below them that the same rows of y read. `place` is the lane block's in the
 * chunk. */
INLINE void transform_x_rows(const GradientScratch *s, int lane_block, int place, int first_row, int rows) {
    int x_row = x_width(s->block);
    for (int i = 0; i < s->in_channels; i++) {
        const vec *x = x_at(s->block, lane_block, i) + first_row * x_row;
        vec *to = s->x + i * s->x_channel_stride + place * s->x_lane_block_stride;
        for (int row = 0; row < rows + TAPS - 1; row++)
            for (int tile = 0; tile < s->tiles; tile++)
                transform_input(x + row * x_row + tile_start(tile, s->block->y_width), to + row * s->tiles + tile,
                                s->x_point_stride);
    }
}

/* Transform some rows of dy. Where the last tile overlaps the one before, its part of the gradient is taken as zero,
 * so that no position counts twice. */
INLINE void transform_dy_rows(const GradientScratch *s, int lane_block, int place, int first_row, int rows) {
    int dy_row = dy_row_stride(s->block);
    for (int o = 0; o < s->out_channels; o++) {
        const vec *dy = dy_at(s->block, lane_block, s->first_out_channel + o) + first_row * dy_row;
        vec *to = s->dy + o * s->dy_channel_stride + place * s->dy_lane_block_stride;
        for (int row = 0; row < rows; row++)
            for (int tile = 0; tile < s->tiles; tile++) {
                int start = tile_start(tile, s->block->y_width);
                vec gradient[TILE];
                UNROLL for (int c = 0; c < TILE; c++)
                    gradient[c] = start + c < tile * TILE ? broadcast(0) : dy[row * dy_row + start + c];
                transform_output_gradient(gradient, to + row * s->tiles + tile, s->dy_point_stride);
            }
    }
}

/* A register tile: at one point, add the products of a chunk to the sums of some output channels o, by some input
 * channels i, by kernel rows. Rows of x lie one below the other, so kernel row r is r rows of tiles further on. */
INLINE void winograd_gradient_tile(const int outputs, const int inputs, const GradientScratch *s, int lane_blocks,
                                   int rows, int point, int out_channel, int in_channel) {
    const vec *x = s->x + point * s->x_point_stride + in_channel * s->x_channel_stride;
    const vec *dy = s->dy + point * s->dy_point_stride + out_channel * s->dy_channel_stride;
    vec *sums = s->sums + point * s->sums_point_stride + out_channel * s->sums_channel_stride + in_channel * TAPS;
    vec sum[WINOGRAD_GRADIENT_OUT][WINOGRAD_GRADIENT_IN][TAPS];
#define EACH_SUM                                                                                                   \
    UNROLL for (int o = 0; o < outputs; o++)                                                                       \
        UNROLL for (int i = 0; i < inputs; i++)                                                                    \
            UNROLL for (int r = 0; r < TAPS; r++)
    EACH_SUM sum[o][i][r] = sums[o * s->sums_channel_stride + i * TAPS + r];
    for (int place = 0; place < lane_blocks; place++)
        for (int n = 0; n < rows * s->tiles; n++) {
            vec gradient[WINOGRAD_GRADIENT_OUT];
            UNROLL for (int o = 0; o < outputs; o++)
                gradient[o] = dy[o * s->dy_channel_stride + place * s->dy_lane_block_stride + n];
            UNROLL for (int i = 0; i < inputs; i++)
                UNROLL for (int r = 0; r < TAPS; r++) {
                    vec input = x[i * s->x_channel_stride + place * s->x_lane_block_stride + n + r * s->tiles];
                    UNROLL for (int o = 0; o < outputs; o++) sum[o][i][r] += gradient[o] * input;
                }
        }
    EACH_SUM sums[o * s->sums_channel_stride + i * TAPS + r] = sum[o][i][r];
#undef EACH_SUM
}

INLINE void add_chunk(const GradientScratch *s, int lane_blocks, int rows) {
    for (int point = 0; point < POINTS; point++)
        for (int o = 0, outputs; o < s->out_channels; o += outputs) {
            outputs = channel_block_size(o, s->out_channels, WINOGRAD_GRADIENT_OUT);
            for (int i = 0, inputs; i < s->in_channels; i += inputs) {
                inputs = channel_block_size(i, s->in_channels, WINOGRAD_GRADIENT_IN);
#define CHANNELS(out, in)                                                                                          \
    if (out <= WINOGRAD_GRADIENT_OUT && in <= WINOGRAD_GRADIENT_IN && outputs == out && inputs == in)              \
        winograd_gradient_tile(out, in, s, lane_blocks, rows, point, o, i);
                CHANNELS(4, 2) CHANNELS(4, 1) CHANNELS(2, 2) CHANNELS(2, 1) CHANNELS(1, 2) CHANNELS(1, 1)
#undef CHANNELS
            }
        }
}

/* Threads share the output channels. */
static void winograd_weight_gradient(const Block *block, int lane_blocks, vec *scratch, int thread, int threads) {
    Range mine = share_of(block->out_channels, thread, threads);
    if (mine.first == mine.end) return;
    const GradientScratch s = gradient_scratch(block, mine, scratch);
    for (ptrdiff_t i = 0; i < POINTS * s.sums_point_stride; i++) s.sums[i] = broadcast(0);
    for (int first = 0; first < lane_blocks; first += s.chunk.lane_blocks)
        for (int row = 0; row < block->y_height; row += s.chunk.rows) {
            int count = min_int(s.chunk.lane_blocks, lane_blocks - first);
            int rows = min_int(s.chunk.rows, block->y_height - row);
            for (int place = 0; place < count; place++) {
                transform_x_rows(&s, first + place, place, row, rows);
                transform_dy_rows(&s, first + place, place, row, rows);
            }
            add_chunk(&s, count, rows);
        }
    float *dweight = block->dweight + mine.first * s.sums_channel_stride * TAPS;
    for (ptrdiff_t i = 0; i < s.sums_point_stride; i++) {
        double at[POINTS];
        for (int point = 0; point < POINTS; point++) at[point] = lane_sum(s.sums[point * s.sums_point_stride + i]);
        transform_filter_gradient(at, dweight + i * TAPS);
    }
}

/* Whether a * b + c is one instruction, with one rounding. Nothing else about the processor changes a bit. */
int32_t fuses_multiply_add(void) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return 1;
#else
    return 0;
#endif
}

/* The number of vectors in a thread's scratch memory: enough for a ring of rows in either pass, and for the gradient
 * of the weights by a single thread. */
size_t scratch_size(const Block *blocks, int count) {
    size_t size = 0;
    for (const Block *block = blocks; block < blocks + count; block++) {
        if (block->kernel_size != TAPS) continue;
        Chunk chunk = chunk_of(block);
        size_t in = block->in_channels, out = block->out_channels, tiles = tiles_of(block->y_width);
        size_t rows = (size_t)chunk.lane_blocks * chunk.rows, x_rows = rows + (TAPS - 1) * chunk.lane_blocks;
        size_t forward = TAPS * in * tiles, backward = TAPS * out * tiles_of(dx_width(block));
        size_t weights = out * in * TAPS + out * rows * tiles + in * x_rows * tiles;
        size_t most = forward > backward ? forward : backward;
        if (weights > most) most = weights;
        if (POINTS * most > size) size = POINTS * most;
    }
    return size;
}

/* ---- Convolution: packed weights, and which algorithm -------------------------------------------------------- */

/* How many numbers one group's packed weights are, for a convolution whose output has this width. */
INLINE ptrdiff_t packed_size(const Block *block, int width) {
    int kernel_size = block->kernel_size;
    int numbers = uses_winograd(kernel_size, width) ? TAPS * POINTS : kernel_size * kernel_size;
    return (ptrdiff_t)group_in_channels(block) * group_out_channels(block) * numbers;
}

/* One group's weights as a convolution with in_channels inputs and out_channels outputs sees them. The gradient of x
 * is a convolution of dy with the flipped kernel, from output channels to input channels. */
typedef struct {
    int in_channels, out_channels, taps, flipped;
    const float *weight;
} Filter;

INLINE float filter_weight(const Filter *filter, int out_channel, int in_channel, int tap) {
    if (filter->flipped)
        return filter->weight[((ptrdiff_t)in_channel * filter->out_channels + out_channel) * filter->taps +
                              filter->taps - 1 - tap];
    return filter->weight[((ptrdiff_t)out_channel * filter->in_channels + in_channel) * filter->taps + tap];
}

/* packed: (in_channels, taps, out_channels). */
static void pack_direct(const Filter *filter, float *packed) {
    for (int o = 0; o < filter->out_channels; o++)
        for (int i = 0; i < filter->in_channels; i++)
            for (int tap = 0; tap < filter->taps; tap++)
                packed[((ptrdiff_t)i * filter->taps + tap) * filter->out_channels + o] =
                    filter_weight(filter, o, i, tap);
}

/* packed: (channel blocks, kernel rows, in_channels, points, channels of the block), transformed. */
static void pack_winograd(const Filter *filter, float *packed) {
    for (int o = 0, size; o < filter->out_channels; o += size) {
        size = channel_block_size(o, filter->out_channels, WINOGRAD_CHANNELS);
        float *to = packed + (ptrdiff_t)o * filter->in_channels * TAPS * POINTS;
        for (int c = 0; c < size; c++)
            for (int tap = 0; tap < TAPS * TAPS; tap += TAPS)
                for (int i = 0; i < filter->in_channels; i++)
                    transform_filter(filter_weight(filter, o + c, i, tap), filter_weight(filter, o + c, i, tap + 1),
                                     filter_weight(filter, o + c, i, tap + 2),
                                     to + (ptrdiff_t)(tap / TAPS * filter->in_channels + i) * POINTS * size + c, size);
    }
}

/* Pack the weights for a convolution whose output has this width: y, or dx in the backward pass. */
static void pack_weights(const Block *block, int width, int backward) {
    int taps = block->kernel_size * block->kernel_size;
    int in_channels = group_in_channels(block), out_channels = group_out_channels(block);
    for (int group = 0; group < block->groups; group++) {
        const float *weight = block->weight + (ptrdiff_t)group * in_channels * out_channels * taps;
        Filter filter = {in_channels, out_channels, taps, 0, weight};
        if (backward) filter = (Filter){out_channels, in_channels, taps, 1, weight};
        float *packed = block->packed_weight + group * packed_size(block, width);
        if (uses_winograd(block->kernel_size, width))
            pack_winograd(&filter, packed);
        else
            pack_direct(&filter, packed);
    }
}

static void convolve(int kernel_size, const Convolution *conv, vec *scratch) {
    if (uses_winograd(kernel_size, conv->width))
        convolve_winograd(conv, scratch);
    else if (kernel_size == 1)
        convolve_direct(1, conv);
    else
        convolve_direct(3, conv);
}

static void convolve_lane_block(const Block *block, int lane_block, vec *scratch) {
    int in_channels = group_in_channels(block), out_channels = group_out_channels(block);
    for (int group = 0; group < block->groups; group++) {
        const Convolution conv = {
            .in_channels = in_channels,
            .out_channels = out_channels,
            .height = block->y_height,
            .width = block->y_width,
            .x = x_at(block, lane_block, group * in_channels),
            .x_channel_stride = x_channel_stride(block),
            .x_row_stride = x_width(block),
            .padding = block->padding,
            .weight = block->packed_weight + group * packed_size(block, block->y_width),
            .bias = block->bias ? block->bias + group * out_channels : 0,
            .y = y_at(block, lane_block, group * out_channels),
        };
        convolve(block->kernel_size, &conv, scratch);
    }
}

/* dx is the convolution of dy with the flipped kernel. */
static void input_gradient(const Block *block, int lane_block, vec *scratch) {
    /* How much of the zeros around dy is read. It is negative where a convolution pads more than its kernel needs: the
     * outermost outputs then depend on no input, and their gradient is left out. */
    int padding = block->kernel_size - 1 - block->padding;
    int in_channels = group_in_channels(block), out_channels = group_out_channels(block);
    for (int group = 0; group < block->groups; group++) {
        const Convolution conv = {
            .in_channels = out_channels,
            .out_channels = in_channels,
            .height = dx_height(block),
            .width = dx_width(block),
            .x = dy_at(block, lane_block, group * out_channels) - padding * (dy_row_stride(block) + 1),
            .x_channel_stride = dy_channel_stride(block),
            .x_row_stride = dy_row_stride(block),
            .padding = padding,
            .weight = block->packed_weight + group * packed_size(block, dx_width(block)),
            .y = dx_at(block, lane_block, group * in_channels),
        };
        convolve(block->kernel_size, &conv, scratch);
    }
}

static void weight_gradient(const Block *block, int lane_blocks, vec *scratch, int thread, int threads) {
    if (uses_winograd(block->kernel_size, block->y_width) && block->groups == 1)
        winograd_weight_gradient(block, lane_blocks, scratch, thread, threads);
    else if (block->kernel_size == 1)
        direct_weight_gradient(1, block, lane_blocks, thread, threads);
    else
        direct_weight_gradient(3, block, lane_blocks, thread, threads);
}

/* ---- Batch norm, dropout, ReLU and pooling ------------------------------------------------------------------- */

/* Normalisation of one channel; the identity where there is no batch norm. */
typedef struct {
    float mean, scale, shift;
} ChannelNorm;

/* One channel of one lane block. `first` is the number of its first position among all of y: dropout hashes it. */
typedef struct {
    const Block *block;
    ChannelNorm norm;
    uint32_t first;
    const vec *y, *dz;
    vec *z, *dy;
} Channel;

INLINE float *norm_term(const Block *block, enum NormTerm term, int channel) {
    return block->norm_terms + term * block->out_channels + channel;
}

INLINE ChannelNorm norm_of(const Block *block, int channel) {
    return (ChannelNorm){*norm_term(block, MEAN, channel), *norm_term(block, SCALE, channel),
                         *norm_term(block, SHIFT, channel)};
}

INLINE Channel channel_at(const Block *block, int lane_block, int channel) {
    return (Channel){
        .block = block,
        .norm = norm_of(block, channel),
        .first = (lane_block * block->out_channels + channel) * block->y_height * block->y_width,
        .y = y_at(block, lane_block, channel),
        .dz = dz_at(block, lane_block, channel),
        .z = z_at(block, lane_block, channel),
        .dy = dy_at(block, lane_block, channel),
    };
}

/* All ones in the lanes whose value survives dropout. The random number is a hash of position and key, so the backward
 * pass computes it again and nothing is stored. Shifts and factors are those of "lowbias32" by Chris Wellons,
 * https://nullprogram.com/blog/2018/07/31/ */
INLINE vec_mask survives_dropout(const Block *block, uint32_t position) {
    vec_bits hash;
    for (uint32_t i = 0; i < LANES; i++) hash[i] = i;
    hash = (hash + position * LANES) ^ (uint32_t)block->dropout_key;
    hash ^= hash >> 16;
    hash *= 0x7feb352du;
    hash ^= hash >> 15;
    hash += (uint32_t)(block->dropout_key >> 32);
    hash *= 0x846ca68bu;
    hash ^= hash >> 16;
    return hash >= block->dropout_threshold;
}

/* The activation before pooling, and the factor by which dropout multiplied. As in PyTorch, NaN stays visible: ReLU
 * passes it on, and dropout multiplies by zero instead of writing zero. */
INLINE vec activate(const int relu, const int dropout, const Channel *channel, int position, vec *factor) {
    const Block *block = channel->block;
    vec v = (channel->y[position] - channel->norm.mean) * channel->norm.scale + channel->norm.shift;
    *factor = broadcast(1);
    if (dropout) {
        vec_mask survives = survives_dropout(block, channel->first + position);
        *factor = select(survives, broadcast(block->dropout_scale), broadcast(0));
        v *= *factor;
    }
    return relu ? select(v <= broadcast(0), broadcast(0), v) : v;
}

/* The gradient of batch norm's output from that of the activation. */
INLINE vec activate_backward(const int relu, const int dropout, vec gradient, vec activation, vec factor) {
    if (relu) gradient = select(activation <= broadcast(0), broadcast(0), gradient);
    return dropout ? gradient * factor : gradient;
}

/* Whether max pooling takes this value instead of the largest so far. Of equal values it takes the first, of several
 * NaN the last, as PyTorch does. */
INLINE vec_mask is_larger(vec value, vec best) { return (value > best) | (value != value); }

/* The position in y of a corner (0 to 3) of a 2x2 pooling window. */
INLINE int window_position(const Block *block, int row, int column, int corner) {
    return (2 * row + corner / 2) * block->y_width + 2 * column + corner % 2;
}

INLINE void activate_max_pool(const int relu, const int dropout, const Channel *channel) {
    const Block *block = channel->block;
    int z_row = z_row_stride(block);
    vec unused;
    for (int row = 0; row < block->z_height; row++)
        for (int column = 0; column < block->z_width; column++) {
            vec best = activate(relu, dropout, channel, window_position(block, row, column, 0), &unused);
            UNROLL for (int corner = 1; corner < 4; corner++) {
                int position = window_position(block, row, column, corner);
                vec other = activate(relu, dropout, channel, position, &unused);
                best = select(is_larger(other, best), other, best);
            }
            channel->z[row * z_row + column] = best;
        }
}

INLINE void activate_average_pool(const int relu, const int dropout, const Channel *channel) {
    int size = channel->block->y_height * channel->block->y_width;
    vec sum = broadcast(0), unused;
    for (int position = 0; position < size; position++) sum += activate(relu, dropout, channel, position, &unused);
    *channel->z = sum / broadcast(size);
}

INLINE void activate_without_pool(const int relu, const int dropout, const Channel *channel) {
    int width = channel->block->y_width, z_row = z_row_stride(channel->block);
    vec unused;
    for (int row = 0; row < channel->block->y_height; row++)
        for (int column = 0; column < width; column++)
            channel->z[row * z_row + column] = activate(relu, dropout, channel, row * width + column, &unused);
}

INLINE void activate_channels(const int relu, const int dropout, const Block *block, int lane_block) {
    for (int c = 0; c < block->out_channels; c++) {
        const Channel channel = channel_at(block, lane_block, c);
        if (block->pool == POOL_NONE)
            activate_without_pool(relu, dropout, &channel);
        else if (block->pool == POOL_MAX)
            activate_max_pool(relu, dropout, &channel);
        else
            activate_average_pool(relu, dropout, &channel);
    }
}

/* What the backward pass of batch norm needs: sums of the gradient g of its output, and of g * (y - mean). */
typedef struct {
    vec gradient, product;
} GradientSums;

INLINE void store_gradient(const Channel *channel, int row, int column, vec gradient, GradientSums *sums) {
    channel->dy[row * dy_row_stride(channel->block) + column] = gradient;
    sums->gradient += gradient;
    sums->product += gradient * (channel->y[row * channel->block->y_width + column] - channel->norm.mean);
}

/* One window: the gradient goes to the corner that max pooling took, and the others get zero. */
INLINE void max_pool_window_backward(const int relu, const int dropout, const Channel *channel, int row, int column,
                                     GradientSums *sums) {
    const Block *block = channel->block;
    vec value[4], factor[4], best;
    vec_mask chosen = {0};
    UNROLL for (int corner = 0; corner < 4; corner++) {
        int position = window_position(block, row, column, corner);
        value[corner] = activate(relu, dropout, channel, position, &factor[corner]);
        vec_mask larger = corner ? is_larger(value[corner], best) : ~(vec_mask){0};
        best = corner ? select(larger, value[corner], best) : value[corner];
        chosen = (larger & corner) | (~larger & chosen);
    }
    UNROLL for (int corner = 0; corner < 4; corner++) {
        vec gradient = select(chosen == corner, channel->dz[row * block->z_width + column], broadcast(0));
        store_gradient(channel, 2 * row + corner / 2, 2 * column + corner % 2,
                       activate_backward(relu, dropout, gradient, value[corner], factor[corner]), sums);
    }
}

INLINE void max_pool_backward(const int relu, const int dropout, const Channel *channel, GradientSums *sums) {
    const Block *block = channel->block;
    int dy_row = dy_row_stride(block);
    /* The last row or column of an odd size is in no window. */
    for (int row = 0; row < block->y_height; row++)
        for (int column = row < 2 * block->z_height ? 2 * block->z_width : 0; column < block->y_width; column++)
            channel->dy[row * dy_row + column] = broadcast(0);
    for (int row = 0; row < block->z_height; row++)
        for (int column = 0; column < block->z_width; column++)
            max_pool_window_backward(relu, dropout, channel, row, column, sums);
}

/* The backward pass without pooling, or through average pooling, which gives all positions the same share. */
INLINE void no_or_average_pool_backward(const int relu, const int dropout, const Channel *channel,
                                        GradientSums *sums) {
    const Block *block = channel->block;
    int height = block->y_height, width = block->y_width;
    vec share = *channel->dz / broadcast(height * width);
    for (int row = 0; row < height; row++)
        for (int column = 0; column < width; column++) {
            int position = row * width + column;
            vec factor, value = activate(relu, dropout, channel, position, &factor);
            vec gradient = block->pool == POOL_NONE ? channel->dz[position] : share;
            store_gradient(channel, row, column, activate_backward(relu, dropout, gradient, value, factor), sums);
        }
}

/* Write the gradient of batch norm's output to dy, and its sums to the partial sums. */
INLINE void activate_channels_backward(const int relu, const int dropout, const Block *block, int lane_block) {
    for (int c = 0; c < block->out_channels; c++) {
        const Channel channel = channel_at(block, lane_block, c);
        GradientSums sums = {broadcast(0), broadcast(0)};
        if (block->pool == POOL_MAX)
            max_pool_backward(relu, dropout, &channel, &sums);
        else
            no_or_average_pool_backward(relu, dropout, &channel, &sums);
        double *partial = partial_sums_at(block, lane_block, c);
        partial[0] = lane_sum(sums.gradient);
        partial[1] = lane_sum(sums.product);
    }
}

/* Code without branches for each of the four combinations. */
#define WITH_CONSTANT_FLAGS(function, relu, dropout, block, lane_block)                                            \
    if (relu && dropout)                                                                                           \
        function(1, 1, block, lane_block);                                                                         \
    else if (relu)                                                                                                 \
        function(1, 0, block, lane_block);                                                                         \
    else if (dropout)                                                                                              \
        function(0, 1, block, lane_block);                                                                         \
    else                                                                                                           \
        function(0, 0, block, lane_block);

static void activate_lane_block(const Block *block, int training, int lane_block) {
    int dropout = block->dropout_threshold && training;
    WITH_CONSTANT_FLAGS(activate_channels, block->has_relu, dropout, block, lane_block)
}
static void activate_lane_block_backward(const Block *block, int lane_block) {
    WITH_CONSTANT_FLAGS(activate_channels_backward, block->has_relu, block->dropout_threshold, block, lane_block)
}

/* ---- Batch norm: statistics and gradients -------------------------------------------------------------------- */

/* How many values of each channel come from a number of images. */
INLINE double value_count(const Block *block, int images) {
    return (double)images * block->y_height * block->y_width;
}
INLINE double lane_block_value_count(const Block *block, int lane_block, int images) {
    return value_count(block, min_int(LANES, images - lane_block * LANES));
}

/* Partial sums of the forward pass: each channel's sum, and sum of squared distances to the lane block's mean. */
static void sum_lane_block(const Block *block, int lane_block, int images) {
    int size = block->y_height * block->y_width;
    double count = lane_block_value_count(block, lane_block, images);
    vec_mask used = lanes_in_use(lane_block, images);
    for (int c = 0; c < block->out_channels; c++) {
        const vec *y = y_at(block, lane_block, c);
        /* The squares come from a difference of two sums. Distances to a value near the mean keep both sums small, and
         * so the rounding error. */
        float near = y[size / 2][0];
        vec sum = broadcast(0), square = broadcast(0);
        for (int i = 0; i < size; i++) {
            vec distance = y[i] - near;
            sum += distance;
            square += distance * distance;
        }
        double distances = lane_sum(select(used, sum, broadcast(0)));
        double squares = lane_sum(select(used, square, broadcast(0)));
        double *partial = partial_sums_at(block, lane_block, c);
        partial[0] = distances + near * count;
        partial[1] = squares - distances * distances / count;
    }
}

/* Both partial sums of a channel, over all lane blocks. */
INLINE void add_partial_sums(const Block *block, int lane_blocks, int channel, double *first, double *second) {
    *first = *second = 0;
    for (int lane_block = 0; lane_block < lane_blocks; lane_block++) {
        const double *partial = partial_sums_at(block, lane_block, channel);
        *first += partial[0];
        *second += partial[1];
    }
}

/* Mean and variance of a channel over the batch, by the parallel algorithm of Chan, Golub and LeVeque (1979): squared
 * distances to the mean of each lane block, and those of these means to the mean of all. */
INLINE void batch_statistics(const Block *block, int images, int channel, double *mean, double *variance) {
    int lane_blocks = lane_blocks_of(images);
    double count = value_count(block, images), squares;
    add_partial_sums(block, lane_blocks, channel, mean, &squares);
    *mean /= count;
    for (int lane_block = 0; lane_block < lane_blocks; lane_block++) {
        double here = lane_block_value_count(block, lane_block, images);
        double distance = *partial_sums_at(block, lane_block, channel) / here - *mean;
        squares += here * distance * distance;
    }
    /* Rounding may give a negative sum. fmax would turn NaN into 0. */
    *variance = squares < 0 ? 0 : squares / count;
}

/* The terms of batch norm: in training from the statistics of the batch, which also update the running ones, else from
 * the running ones. The identity where there is no batch norm. */
static void norm_forward_terms(const Block *block, int images, int training) {
    double count = value_count(block, images);
    for (int c = 0; c < block->out_channels; c++) {
        if (!block->has_norm) {
            *norm_term(block, SCALE, c) = 1;
            *norm_term(block, MEAN, c) = *norm_term(block, SHIFT, c) = 0;
            continue;
        }
        float *running_mean = block->running_mean + c, *running_var = block->running_var + c;
        double mean = *running_mean, variance = *running_var;
        if (training) {
            batch_statistics(block, images, c, &mean, &variance);
            *running_mean += block->momentum * ((float)mean - *running_mean);
            *running_var += block->momentum * ((float)(variance * count / (count - 1)) - *running_var);
        }
        double inverse_std = 1 / sqrt(variance + block->epsilon);
        *norm_term(block, MEAN, c) = mean;
        *norm_term(block, INVERSE_STD, c) = inverse_std;
        *norm_term(block, SCALE, c) = block->gamma[c] * inverse_std;
        *norm_term(block, SHIFT, c) = block->beta[c];
    }
}

/* The gradients of gamma, beta and bias, and the terms of batch norm's backward pass. */
static void norm_backward_terms(const Block *block, int images) {
    double count = value_count(block, images);
    for (int c = 0; c < block->out_channels; c++) {
        double sum, product;
        add_partial_sums(block, lane_blocks_of(images), c, &sum, &product);
        if (!block->has_norm) {
            if (block->dbias) block->dbias[c] = sum;
            continue;
        }
        double inverse_std = *norm_term(block, INVERSE_STD, c), dgamma = product * inverse_std;
        block->dbeta[c] = sum;
        block->dgamma[c] = dgamma;
        /* Batch norm subtracts the bias again, so its gradient is 0, or NaN where the others are not finite. */
        if (block->dbias) block->dbias[c] = (sum - sum) + (dgamma - dgamma);
        *norm_term(block, GRADIENT_MEAN, c) = sum / count;
        *norm_term(block, SLOPE, c) = inverse_std * dgamma / count;
    }
}

/* dy: from the gradient of batch norm's output to that of its input. Lanes without an image get zero, so that they add
 * nothing to the gradient of the weights. */
static void norm_backward(const Block *block, int lane_block, int images) {
    int width = block->y_width, dy_row = dy_row_stride(block);
    vec_mask used = lanes_in_use(lane_block, images);
    for (int c = 0; c < block->out_channels; c++) {
        ChannelNorm norm = norm_of(block, c);
        float gradient_mean = *norm_term(block, GRADIENT_MEAN, c), slope = *norm_term(block, SLOPE, c);
        const vec *y = y_at(block, lane_block, c);
        vec *dy = dy_at(block, lane_block, c);
        for (int row = 0; row < block->y_height; row++)
            for (int column = 0; column < width; column++) {
                vec g = dy[row * dy_row + column] - gradient_mean - (y[row * width + column] - norm.mean) * slope;
                dy[row * dy_row + column] = select(used, g * norm.scale, broadcast(0));
            }
    }
}

/* ---- The whole network --------------------------------------------------------------------------------------- */

/* In training, batch norm needs the statistics of the whole batch: no lane block goes on before all are this far. */
INLINE int waits_for_batch(const Block *block, int training) { return block->has_norm && training; }

/* The forward pass, in training mode or in evaluation mode (running statistics, no dropout). All threads call it. */
void forward(const Block *blocks, int count, int images, int training, Barrier *barrier, vec *scratch, int thread,
             int threads) {
    const Block *end = blocks + count;
    Range mine = share_of(lane_blocks_of(images), thread, threads);
    if (thread == 0)
        for (const Block *block = blocks; block < end; block++) {
            pack_weights(block, block->y_width, 0);
            if (!waits_for_batch(block, training)) norm_forward_terms(block, images, training);
        }
    wait_for_all(barrier, threads);
    /* The blocks from one wait to the next are computed lane block by lane block, whose data then stay in the cache.
     * Where the wait is for batch norm, the activation is computed after it. */
    for (const Block *from = blocks, *to; from < end; from = to) {
        for (to = from + 1; to < end && !waits_for_batch(to - 1, training);) to++;
        for (int lane_block = mine.first; lane_block < mine.end; lane_block++) {
            if (from > blocks) activate_lane_block(from - 1, training, lane_block);
            for (const Block *block = from; block < to; block++) {
                convolve_lane_block(block, lane_block, scratch);
                if (waits_for_batch(block, training))
                    sum_lane_block(block, lane_block, images);
                else
                    activate_lane_block(block, training, lane_block);
            }
        }
        if (!waits_for_batch(to - 1, training)) continue;
        wait_for_all(barrier, threads);
        if (thread == 0) norm_forward_terms(to - 1, images, training);
        wait_for_all(barrier, threads);
    }
    if (waits_for_batch(end - 1, training))
        for (int lane_block = mine.first; lane_block < mine.end; lane_block++)
            activate_lane_block(end - 1, training, lane_block);
}

/* The backward pass, after a forward pass in training mode: from dz of the last block to the gradients of all
 * parameters. All threads call it. */
void backward(const Block *blocks, int count, int images, Barrier *barrier, vec *scratch, int thread, int threads) {
    const Block *last = blocks + count - 1;
    int lane_blocks = lane_blocks_of(images);
    Range mine = share_of(lane_blocks, thread, threads);
    if (thread == 0)
        for (const Block *block = blocks + 1; block <= last; block++) pack_weights(block, dx_width(block), 1);
    for (int lane_block = mine.first; lane_block < mine.end; lane_block++)
        activate_lane_block_backward(last, lane_block);
    wait_for_all(barrier, threads);
    for (const Block *block = last; block >= blocks; block--) {
        /* The terms are sums over all lane blocks. */
        if (thread == 0) norm_backward_terms(block, images);
        wait_for_all(barrier, threads);
        for (int lane_block = mine.first; lane_block < mine.end; lane_block++) {
            if (block->has_norm) norm_backward(block, lane_block, images);
            if (block == blocks) continue;
            input_gradient(block, lane_block, scratch);
            activate_lane_block_backward(block - 1, lane_block);
        }
        /* The gradient of the weights reads dy of all lane blocks. */
        wait_for_all(barrier, threads);
        weight_gradient(block, lane_blocks, scratch, thread, threads);
    }
}
