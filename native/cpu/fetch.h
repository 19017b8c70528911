/* Memory that is fetched into the cache while something else is computed. */
#ifndef ONCEUPON_FETCH_H
#define ONCEUPON_FETCH_H

#include <stddef.h>

#define LINE 64
/* Rows that are fetched while others are packed: of those a multiple of 4 KB
 * apart, few that were fetched earlier stay in a cache. */
#define PACK_AHEAD 16

/* Lines still to be fetched, one at a time: `rows` rows of `run` lines, the
 * next row `jump` bytes after the end of the one before. */
typedef struct fetch {
    const char *at;
    int left, run, rows;
    ptrdiff_t jump;
} fetch;

/* None, where bytes or rows are not above 0: behind the last of what is packed. */
static inline fetch fetch_rows(const void *first, ptrdiff_t bytes, size_t stride, int rows)
{
    int run = bytes > 0 ? (int)((bytes + LINE - 1) / LINE) : 0;
    return (fetch){first, run, run, run && rows > 0 ? rows : 0, (ptrdiff_t)stride - run * LINE};
}

/* The same line again and again. */
static inline fetch fetch_nothing(const void *line) { return fetch_rows(line, LINE, 0, 0); }

/* Lines that are left, at most `most`. */
static inline int fetch_count(const fetch *f, int most)
{
    int lines = f->rows * f->run;
    return lines < most ? lines : most;
}

static inline void fetch_line(fetch *f)
{
    __builtin_prefetch(f->at);
    f->at += LINE;
    if (--f->left == 0) {
        f->left = f->run;
        f->at += f->jump;
        f->rows--;
    }
}

#endif
