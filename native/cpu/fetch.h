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

/* far: to the second cache, for what another op reads. */
static inline void fetch_line(fetch *f, const int far)
{
    if (far)
        __builtin_prefetch(f->at, 0, 2);
    else
        __builtin_prefetch(f->at);
    f->at += LINE;
    if (--f->left == 0) {
        f->left = f->run;
        f->at += f->jump;
        f->rows--;
    }
}

/* What ops that come later will read, in their order: a worker fetches it beside
 * what it multiplies itself. What finds no place is left to the op. */
#define FETCH_ITEMS 512
typedef struct fetch_list {
    int next, count;
    fetch items[FETCH_ITEMS];
} fetch_list;

static inline void fetch_later(fetch_list *l, fetch f)
{
    if (l->count < FETCH_ITEMS)
        l->items[l->count++] = f;
}

static inline fetch *fetch_first(fetch_list *l)
{
    while (l->next < l->count && l->items[l->next].rows <= 0)
        l->next++;
    return l->next < l->count ? l->items + l->next : NULL;
}

#endif
