/* SPDX-License-Identifier: Apache-2.0 */
/*
 * precopy.c - see precopy.h. Tested by: move_test.c.
 *
 * A round walks the RAM in ranges. Each range is harvested just before it is sent, so that what the
 * guest wrote there since the round began is part of this copy and not of the next. A page's bit is
 * taken before the page is read: a write after that sets it again.
 */
#include "migration/precopy.h"

#include <assert.h>

#include "base/assert.h"
#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "control/control_client.h"
#include "control/lent_memory.h"
#include "migration/link.h"
#include "migration/page_senders.h"

#define RANGE_BLOCKS 1024u /* 256 MiB */
#define RANGE_PAGES  ((uint64_t)RANGE_BLOCKS * BITMAP_WORD_BITS)

/* Rounds that sent less than this say little about the link. */
#define MEASURED_PAGES_MIN 2048u

static_assert(BITMAP_WORD_BITS == PAGE_BLOCK_PAGES, "a word of the bitmap is a block of pages");

/* Of a range of `count` pages whose words were taken: forgets those that the memory file does not
 * hold. They are zero, as they are at the target before anything has been sent. */
static struct err *drop_holes(const struct lent_memory *memory, uint64_t *words, uint64_t first,
                              uint64_t count)
{
    uint64_t at = first;

    while (at < first + count) {
        uint64_t data_first = 0;
        uint64_t data_count = 0;

        TRY(lent_memory_next_data(memory, at, &data_first, &data_count));
        if (data_count == 0 || data_first >= first + count)
            data_first = first + count;
        if (data_first > at)
            bitmap_clear_range(words, at - first, data_first - at);
        at = data_first + data_count;
    }
    return NULL;
}

/* Sends what is dirty in one range. */
static struct err *send_range(struct precopy *precopy, uint64_t first, uint64_t count,
                              bool is_first_round)
{
    uint64_t words[RANGE_BLOCKS];
    uint64_t *dirty = lent_memory_dirty(precopy->memory);
    size_t word_first = (size_t)(first / BITMAP_WORD_BITS);
    size_t word_count = bitmap_words(count);

    ASSERT(word_count > 0 && word_count <= RANGE_BLOCKS);
    for (size_t i = 0; i < word_count; i++)
        words[i] = bitmap_atomic_take_word(dirty, word_first + i);
    /* Bits beyond the last page mean nothing. */
    if (count % BITMAP_WORD_BITS != 0)
        words[word_count - 1] &= ((uint64_t)1 << (count % BITMAP_WORD_BITS)) - 1;
    if (is_first_round)
        TRY(drop_holes(precopy->memory, words, first, count));
    for (size_t i = 0; i < word_count; i++)
        if (words[i] != 0)
            page_senders_add(precopy->senders, word_first + i, words[i]);
    return NULL;
}

static struct err *check_session(struct precopy *precopy)
{
    TRY(link_failure(precopy->link));
    return page_senders_failure(precopy->senders);
}

static uint64_t pages_sent(struct precopy *precopy)
{
    struct page_counts counts = page_senders_counts(precopy->senders);

    return counts.raw_pages + counts.lz4_pages;
}

static struct err *run_round(struct precopy *precopy)
{
    struct precopy_progress *progress = &precopy->progress;
    uint64_t page_count = lent_memory_page_count(precopy->memory);
    uint64_t started_ns = clock_monotonic_ns();
    uint64_t sent_before = pages_sent(precopy);
    uint64_t dirty_pages = 0;

    for (uint64_t first = 0; first < page_count; first += RANGE_PAGES) {
        uint64_t count = MIN(RANGE_PAGES, page_count - first);

        TRY(check_session(precopy));
        TRY(control_harvest(precopy->control, first, count, &dirty_pages));
        TRY(send_range(precopy, first, count, progress->rounds_done == 0));
    }
    TRY(page_senders_flush(precopy->senders));

    uint64_t elapsed_ns = MAX(clock_monotonic_ns() - started_ns, (uint64_t)1);
    uint64_t sent = pages_sent(precopy) - sent_before;
    if (sent >= MEASURED_PAGES_MIN)
        progress->pages_per_second = sent * NS_PER_MS / MAX(elapsed_ns / 1000, (uint64_t)1);
    TRY(control_harvest(precopy->control, 0, 0, &dirty_pages));
    progress->rounds_done++;
    progress->left_pages = dirty_pages;
    progress->round_trip_ns = link_round_trip_ns(precopy->link);
    if (progress->rounds_done == 1 || dirty_pages < progress->left_pages_min) {
        progress->left_pages_min = dirty_pages;
        progress->rounds_since_min = 0;
    } else {
        progress->rounds_since_min++;
    }
    return NULL;
}

static struct err *give_up(const struct precopy *precopy)
{
    const struct precopy_progress *progress = &precopy->progress;

    return err_new(ERR_STATE,
                   "the guest writes faster than its memory can be moved: after %u rounds %ju MiB "
                   "are left, the link carries %ju MiB/s, so stopping now would mean a blackout of "
                   "%ju ms; allow that with '--downtime', or try when the guest is less busy",
                   progress->rounds_done, (uintmax_t)(progress->left_pages * PAGE_BYTES / MIB),
                   (uintmax_t)(progress->pages_per_second * PAGE_BYTES / MIB),
                   (uintmax_t)(precopy_blackout_ns(*progress) / NS_PER_MS));
}

struct err *precopy_run(struct precopy *precopy)
{
    for (;;) {
        TRY(run_round(precopy));
        if (precopy->round_done != NULL)
            precopy->round_done(precopy->context, &precopy->progress);
        switch (precopy_decide(precopy->progress, precopy->limits)) {
        case PRECOPY_STOP_GUEST: return NULL;
        case PRECOPY_GIVE_UP: return give_up(precopy);
        case PRECOPY_CONTINUE: break;
        }
    }
}

struct err *precopy_count_rest(struct precopy *precopy)
{
    return control_harvest(precopy->control, 0, 0, &precopy->progress.left_pages);
}

struct err *precopy_send_rest(struct precopy *precopy, uint64_t *out_pages)
{
    uint64_t page_count = lent_memory_page_count(precopy->memory);

    TRY(control_harvest(precopy->control, 0, 0, out_pages));
    for (uint64_t first = 0; first < page_count; first += RANGE_PAGES)
        TRY(send_range(precopy, first, MIN(RANGE_PAGES, page_count - first), false));
    return page_senders_end(precopy->senders);
}
