/* The register tile of gemm.c over either kind of factors: gemm_fp32.h or
 * gemm_bf16.h, which is included before, says how a step of the depth is
 * multiplied, and how many there are (`steps`). */

/* out (rows,COLS) = start + a * b panel; start may be out, or a row for all
 * when start_row is 0. `soon` is fetched first, then `ahead`; and
 * `later` in tiles of all rows, whose steps last long enough for two lines. */
static inline __attribute__((always_inline)) void tile(float *out, size_t out_row, const float *start, size_t start_row,
                                                       const packed *restrict a, const packed *restrict b, int depth,
                                                       const int rows, const int by_rows, fetch *soon, fetch *ahead,
                                                       fetch *later)
{
    vec acc[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            acc[r][v] = vec_load(start + r * start_row + v * LANES);
    int left = steps(depth);
#ifdef STRIP
    for (int k = 0; k < left; k += STRIP)
        strip(acc, a + (size_t)k * (by_rows ? 1 : ROWS), b + (size_t)k * COLS, left - k < STRIP ? left - k : STRIP,
              rows, by_rows, soon->rows > 0 ? soon : ahead, later);
#else
    int k = fetch_count(soon, left / LINE_STEPS) * LINE_STEPS;
    multiply_add(acc, a, b, k, rows, by_rows, soon, later);
    multiply_add(acc, a + (size_t)k * (by_rows ? 1 : ROWS), b + (size_t)k * COLS, left - k, rows, by_rows, ahead,
                 later);
#endif
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++)
            vec_store(out + r * out_row + v * LANES, acc[r][v]);
}

/* Tiles come in these numbers of rows. */
static inline int tile_rows(int rows)
{
    return rows > 2 * ROWS / 3 ? ROWS : rows > ROWS / 3 ? 2 * ROWS / 3 : rows > 1 ? ROWS / 3 : 1;
}

static inline __attribute__((always_inline)) void some_rows(int rows, float *out, size_t out_row, const float *start,
                                                            size_t start_row, const packed *a, const packed *b,
                                                            int depth, const int whole_rows, fetch *soon, fetch *ahead,
                                                            fetch *later)
{
    if (rows == ROWS && whole_rows && later)
        tile(out, out_row, start, start_row, a, b, depth, ROWS, whole_rows, soon, ahead, later);
    else if (rows == ROWS)
        tile(out, out_row, start, start_row, a, b, depth, ROWS, whole_rows, soon, ahead, NULL);
    else if (rows == 2 * ROWS / 3)
        tile(out, out_row, start, start_row, a, b, depth, 2 * ROWS / 3, whole_rows, soon, ahead, NULL);
    else if (rows == ROWS / 3)
        tile(out, out_row, start, start_row, a, b, depth, ROWS / 3, whole_rows, soon, ahead, NULL);
    else
        tile(out, out_row, start, start_row, a, b, depth, 1, whole_rows, soon, ahead, NULL);
}
