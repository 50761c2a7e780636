/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_capture.c - see memory_capture.h. Tested by: take_test.c
 *
 * How a page gets from a running guest into a snapshot without being torn
 *
 * The machine lends its memory and a bitmap. A harvest makes it add to the bitmap what changed,
 * and watch those pages anew. Here a word of the bitmap is taken (read and cleared in one step)
 * BEFORE its pages are read. So for every page:
 *
 *     guest writes -> harvest sets the bit -> word taken -> page copied
 *                                                 ^ a write from here on sets the bit again
 *
 * A copy that the guest writes into may be torn, but then its bit comes back, and a later round
 * replaces it. Only what is copied in the pause, after the last harvest, is final by itself.
 * Write rounds harvest each chunk just before they copy it: writes between the last harvest and
 * the copy then do not cost a second copy.
 *
 * Holes of the memory file are zero pages. Reading one would make the host back it, so write
 * rounds walk the file's data. Stage rounds do not: what changed a moment ago is no hole, and a
 * system call for each run of pages has no place in the pause.
 */
#include "snapshot/memory_capture.h"

#include <string.h>

#include "base/bitmap.h"
#include "base/cancel.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "control/control_client.h"
#include "control/lent_memory.h"
#include "snapshot/memory_writer.h"
#include "snapshot/page_stage.h"

#define CHUNK_PAGES            65536u /* 256 MiB of RAM between two harvests */
#define COPY_NS_PER_PAGE_GUESS 1500u
#define COPY_PAGES_TO_MEASURE  256u

struct memory_capture {
    struct control_client *client;
    struct lent_memory *memory;
    struct memory_writer *writer;
    struct page_stage *stage; /* owned */
    uint64_t copy_ns_per_page;
    uint64_t taken[CHUNK_PAGES / BITMAP_WORD_BITS]; /* the bits of one chunk */
};

void memory_capture_destroy(struct memory_capture *capture)
{
    if (capture == NULL)
        return;
    page_stage_destroy(capture->stage);
    free(capture);
}

struct err *memory_capture_create(struct control_client *client, struct lent_memory *memory,
                                  struct memory_writer *writer, struct memory_capture **out_capture)
{
    CLEANUP(cleanup_memory_capture) struct memory_capture *capture = calloc(1, sizeof(*capture));

    if (capture == NULL)
        return err_new(ERR_NO_MEMORY, "copy the machine's memory");
    capture->client = client;
    capture->memory = memory;
    capture->writer = writer;
    capture->copy_ns_per_page = COPY_NS_PER_PAGE_GUESS;
    /* Room for everything, backed as it is used: how much is meant to be staged is the caller's
     * policy, but what changes in the last moment must find room whatever it is. */
    uint64_t page_count = lent_memory_page_count(memory);
    TRY(page_stage_create(page_count, page_count, &capture->stage));
    *out_capture = TAKE_PTR(capture);
    return NULL;
}

static uint64_t chunk_page_count(const struct memory_capture *capture, uint64_t first)
{
    return MIN((uint64_t)CHUNK_PAGES, lent_memory_page_count(capture->memory) - first);
}

/* Moves the chunk's bits from the lent bitmap to `taken`; false when there are none. */
static bool take_chunk(struct memory_capture *capture, uint64_t first, uint64_t count)
{
    uint64_t *dirty = lent_memory_dirty(capture->memory) + first / BITMAP_WORD_BITS;
    uint64_t any = 0;

    for (size_t word = 0; word < bitmap_words(count); word++) {
        /* A plain look first: most words are zero, and an exchange would dirty their lines. */
        capture->taken[word] = __atomic_load_n(&dirty[word], __ATOMIC_RELAXED) == 0
                                   ? 0
                                   : bitmap_atomic_take_word(dirty, word);
        any |= capture->taken[word];
    }
    return any != 0;
}

/* The taken pages in [first, end) of the chunk that starts at page `base` are holes. */
static void write_holes(struct memory_capture *capture, uint64_t base, uint64_t first, uint64_t end)
{
    for (uint64_t at = bitmap_next_set(capture->taken, end, first); at < end;
         at = bitmap_next_set(capture->taken, end, at + 1))
        memory_writer_put_zero(capture->writer, base + at);
}

static struct err *write_data(struct memory_capture *capture, uint64_t base, uint64_t first,
                              uint64_t end)
{
    const uint8_t *pages = lent_memory_base(capture->memory);

    for (uint64_t at = bitmap_next_set(capture->taken, end, first); at < end;
         at = bitmap_next_set(capture->taken, end, at + 1))
        TRY(memory_writer_put(capture->writer, base + at, pages + (base + at) * PAGE_BYTES));
    return NULL;
}

static struct err *write_taken(struct memory_capture *capture, uint64_t base, uint64_t count)
{
    uint64_t at = 0;

    while (at < count) {
        uint64_t data_first = 0;
        uint64_t data_count = 0;
        TRY(lent_memory_next_data(capture->memory, base + at, &data_first, &data_count));
        uint64_t hole_end = data_count == 0 ? count : MIN(count, data_first - base);
        write_holes(capture, base, at, hole_end);
        at = hole_end == count ? count : MIN(count, hole_end + data_count);
        TRY(write_data(capture, base, hole_end, at));
    }
    return NULL;
}

struct err *memory_capture_flush(struct memory_capture *capture)
{
    for (uint64_t at = 0; at < page_stage_count(capture->stage); at++) {
        uint64_t page = 0;
        const uint8_t *content = page_stage_get(capture->stage, at, &page);
        TRY(cancel_check());
        TRY(memory_writer_put(capture->writer, page, content));
    }
    page_stage_clear(capture->stage);
    return NULL;
}

struct err *memory_capture_write_round(struct memory_capture *capture)
{
    uint64_t page_count = lent_memory_page_count(capture->memory);

    /* What is staged is older than what is dirty. */
    TRY(memory_capture_flush(capture));
    for (uint64_t first = 0; first < page_count; first += CHUNK_PAGES) {
        uint64_t count = chunk_page_count(capture, first);
        uint64_t dirty = 0;
        TRY(cancel_check());
        TRY(control_harvest(capture->client, first, count, &dirty));
        if (take_chunk(capture, first, count))
            TRY(write_taken(capture, first, count));
    }
    return NULL;
}

struct err *memory_capture_harvest(struct memory_capture *capture, uint64_t *out_dirty_pages)
{
    return control_harvest(capture->client, 0, 0, out_dirty_pages);
}

static struct err *stage_taken(struct memory_capture *capture, uint64_t base, uint64_t count,
                               uint64_t *inout_pages)
{
    const uint8_t *pages = lent_memory_base(capture->memory);

    for (uint64_t at = bitmap_next_set(capture->taken, count, 0); at < count;
         at = bitmap_next_set(capture->taken, count, at + 1)) {
        TRY(page_stage_put(capture->stage, base + at, pages + (base + at) * PAGE_BYTES));
        ++*inout_pages;
    }
    return NULL;
}

struct err *memory_capture_stage_round(struct memory_capture *capture)
{
    uint64_t page_count = lent_memory_page_count(capture->memory);
    uint64_t start_ns = clock_monotonic_ns();
    uint64_t copied_pages = 0;

    for (uint64_t first = 0; first < page_count; first += CHUNK_PAGES) {
        uint64_t count = chunk_page_count(capture, first);
        if (take_chunk(capture, first, count))
            TRY(stage_taken(capture, first, count, &copied_pages));
    }
    if (copied_pages >= COPY_PAGES_TO_MEASURE)
        capture->copy_ns_per_page = (clock_monotonic_ns() - start_ns) / copied_pages;
    return NULL;
}

void memory_capture_prepare(struct memory_capture *capture, uint64_t pages)
{
    page_stage_prepare(capture->stage, pages);
}

uint64_t memory_capture_staged_pages(const struct memory_capture *capture)
{
    return page_stage_count(capture->stage);
}

uint64_t memory_capture_copy_ns_per_page(const struct memory_capture *capture)
{
    return capture->copy_ns_per_page;
}
