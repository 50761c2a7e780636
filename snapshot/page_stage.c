/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_stage.c - see page_stage.h.
 *
 * Three lazily backed mappings: contents, the page in each place, and the place of each page (one
 * higher; 0: none).
 */
#include "snapshot/page_stage.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/limits.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

struct page_stage {
    uint64_t page_count;
    uint64_t capacity;
    uint64_t count;
    uint8_t *contents; /* owned, mapped */
    uint64_t *pages;   /* owned, mapped */
    uint32_t *places;  /* owned, mapped */
};

static struct err *map(size_t bytes, void **out_at)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return err_errno(errno, "reserve %zu bytes to stage pages", bytes);
    *out_at = at;
    return NULL;
}

static void unmap(void *at, size_t bytes)
{
    if (at != NULL)
        (void)munmap(at, bytes);
}

void page_stage_destroy(struct page_stage *stage)
{
    if (stage == NULL)
        return;
    unmap(stage->contents, stage->capacity * PAGE_BYTES);
    unmap(stage->pages, stage->capacity * sizeof(*stage->pages));
    unmap(stage->places, stage->page_count * sizeof(*stage->places));
    free(stage);
}

struct err *page_stage_create(uint64_t page_count, uint64_t capacity, struct page_stage **out_stage)
{
    CLEANUP(cleanup_page_stage) struct page_stage *stage = calloc(1, sizeof(*stage));

    if (capacity >= UINT32_MAX)
        return err_new(ERR_INCOMPATIBLE, "stage pages: %llu are too many",
                       (unsigned long long)capacity);
    ASSERT(page_count != 0 && capacity != 0);
    if (stage == NULL)
        return err_new(ERR_NO_MEMORY, "stage pages");
    stage->page_count = page_count;
    stage->capacity = capacity;
    TRY(map(capacity * PAGE_BYTES, (void **)&stage->contents));
    TRY(map(capacity * sizeof(*stage->pages), (void **)&stage->pages));
    TRY(map(page_count * sizeof(*stage->places), (void **)&stage->places));
    /* Only a hint: a fault then backs 2 MiB at once. */
    (void)madvise(stage->contents, capacity * PAGE_BYTES, MADV_HUGEPAGE);
    *out_stage = TAKE_PTR(stage);
    return NULL;
}

uint64_t page_stage_count(const struct page_stage *stage)
{
    return stage->count;
}

uint64_t page_stage_capacity(const struct page_stage *stage)
{
    return stage->capacity;
}

void page_stage_prepare(struct page_stage *stage, uint64_t pages)
{
    uint64_t room = MIN(pages, stage->capacity - stage->count);

    /* Only faster: without it the copies take the faults. */
    if (room != 0)
        (void)madvise(stage->contents + stage->count * PAGE_BYTES, room * PAGE_BYTES,
                      MADV_POPULATE_WRITE);
}

struct err *page_stage_put(struct page_stage *stage, uint64_t page, const uint8_t *content)
{
    ASSERT(page < stage->page_count);
    if (stage->places[page] == 0) {
        if (stage->count == stage->capacity)
            return err_new(ERR_NO_MEMORY, "stage pages: all %llu places are taken",
                           (unsigned long long)stage->capacity);
        stage->pages[stage->count] = page;
        stage->places[page] = (uint32_t)++stage->count;
    }
    memcpy(stage->contents + (uint64_t)(stage->places[page] - 1) * PAGE_BYTES, content, PAGE_BYTES);
    return NULL;
}

const uint8_t *page_stage_get(const struct page_stage *stage, uint64_t at, uint64_t *out_page)
{
    ASSERT(at < stage->count);
    *out_page = stage->pages[at];
    return stage->contents + at * PAGE_BYTES;
}

void page_stage_clear(struct page_stage *stage)
{
    for (uint64_t at = 0; at < stage->count; at++)
        stage->places[stage->pages[at]] = 0;
    stage->count = 0;
}
