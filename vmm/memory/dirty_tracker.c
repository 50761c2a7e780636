/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_tracker.c - see dirty_tracker.h.
 *
 * How it works. Two writers: vCPUs, seen by KVM's log, and devices, which mark their own writes.
 * Any number of readers, each with bitmaps of its own:
 *
 *     KVM's log ----\                     /--> round bitmap of each reader (shared with it)
 *                    >-- harvest: OR into ---> cut bitmap of each reader that marked a cut
 *     device marks -/                     \--> kept bitmap: changes since the kept snapshot
 *
 * A harvest of a range reads the log, clears it (so that KVM sees the next write), takes the
 * device marks, and only then sets bits in the bitmaps. A reader takes a bit before it reads the
 * page. So a write is either in the copy that the reader makes, or it comes after the clear and is
 * in a later harvest: a page is handed out at least once after its last change. If a bitmap were
 * set before the clear, a reader could take the bit and copy the page, and the clear would then
 * forget a write that came after that copy.
 *
 * A snapshot must lose nothing when its worker fails at any moment, so the changes since the last
 * durable snapshot (kept) are never taken by anybody: they grow until a newer snapshot is durable
 * and its own changes since the cut take their place. The log stays enabled as long as there is
 * a reader or a kept snapshot.
 */
#include "vmm/memory/dirty_tracker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "vmm/memory/dirty_log.h"
#include "vmm/memory/guest_memory.h"

#define CLEAR_PAGES 65536u /* at a time: the kernel holds a lock of the whole machine meanwhile */

struct dirty_consumer {
    struct dirty_tracker *tracker;
    struct dirty_consumer *next;
    int fd;
    uint64_t *round; /* mapped from fd, shared with the reader */
    uint64_t *cut;   /* owned; NULL before the cut */
    bool is_incremental;
};

struct dirty_tracker {
    struct guest_memory *memory;
    struct dirty_log *log;
    uint64_t page_count;
    bool is_logging;
    uint64_t *scratch;                /* owned: one region's log */
    struct dirty_consumer *consumers; /* owned by who attached them */
    uint64_t *kept;                   /* owned; NULL: no snapshot is kept */
    char kept_name[SNAPSHOT_ID_MAX + 1];
};

static size_t words_of(const struct dirty_tracker *tracker)
{
    return bitmap_words(tracker->page_count);
}

struct err *dirty_tracker_create(struct guest_memory *memory, struct dirty_log *log,
                                 struct dirty_tracker **out_tracker)
{
    struct dirty_tracker *tracker = calloc(1, sizeof(*tracker));
    if (tracker == NULL)
        return err_new(ERR_NO_MEMORY, "dirty tracker");
    *tracker = (struct dirty_tracker){
        .memory = memory,
        .log = log,
        .page_count = guest_memory_page_count(memory),
    };
    /* A region's pages begin at a word of the bitmaps, so that logs are merged by words. */
    for (size_t i = 0; i < guest_memory_region_count(memory); i++)
        ASSERT(guest_memory_region(memory, i).file_offset / PAGE_BYTES % BITMAP_WORD_BITS == 0);
    *out_tracker = tracker;
    return NULL;
}

void dirty_tracker_destroy(struct dirty_tracker *tracker)
{
    if (tracker == NULL)
        return;
    ASSERT(tracker->consumers == NULL);
    free(tracker->scratch);
    free(tracker->kept);
    free(tracker);
}

static struct err *start_logging(struct dirty_tracker *tracker)
{
    if (tracker->is_logging)
        return NULL;
    if (tracker->scratch == NULL)
        tracker->scratch = calloc(words_of(tracker), sizeof(uint64_t));
    if (tracker->scratch == NULL)
        return err_new(ERR_NO_MEMORY, "dirty bitmap");
    TRY(tracker->log->ops->enable(tracker->log));
    tracker->is_logging = true;
    return NULL;
}

static void stop_logging_if_unused(struct dirty_tracker *tracker)
{
    if (!tracker->is_logging || tracker->consumers != NULL || tracker->kept != NULL)
        return;
    struct err *err = tracker->log->ops->disable(tracker->log);
    /* Still logging then: slower, but not wrong, and the next reader finds it enabled. */
    if (err == NULL)
        tracker->is_logging = false;
    err_free(err);
}

static struct err *map_round(struct dirty_consumer *consumer, size_t bytes)
{
    consumer->fd = memfd_create("dirty-pages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (consumer->fd < 0 || ftruncate(consumer->fd, (off_t)bytes) < 0)
        return err_errno(errno, "create a dirty bitmap of %zu bytes", bytes);
    if (fcntl(consumer->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return err_errno(errno, "seal a dirty bitmap");

    void *round = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, consumer->fd, 0);
    if (round == MAP_FAILED)
        return err_errno(errno, "map a dirty bitmap");
    consumer->round = round;
    return NULL;
}

struct err *dirty_tracker_attach(struct dirty_tracker *tracker, const char *since,
                                 struct dirty_consumer **out_consumer)
{
    struct dirty_consumer *consumer = calloc(1, sizeof(*consumer));
    if (consumer == NULL)
        return err_new(ERR_NO_MEMORY, "dirty bitmap");
    *consumer = (struct dirty_consumer){.tracker = tracker, .fd = -1, .next = tracker->consumers};
    tracker->consumers = consumer;

    struct err *err = map_round(consumer, bitmap_bytes(tracker->page_count));
    if (err == NULL)
        err = start_logging(tracker);
    if (err != NULL) {
        dirty_consumer_detach(consumer);
        return err;
    }

    consumer->is_incremental =
        since != NULL && tracker->kept != NULL && strcmp(since, tracker->kept_name) == 0;
    if (consumer->is_incremental)
        memcpy(consumer->round, tracker->kept, bitmap_bytes(tracker->page_count));
    else
        bitmap_set_range(consumer->round, 0, tracker->page_count);
    *out_consumer = consumer;
    return NULL;
}

void dirty_consumer_detach(struct dirty_consumer *consumer)
{
    if (consumer == NULL)
        return;
    struct dirty_tracker *tracker = consumer->tracker;
    struct dirty_consumer **link = &tracker->consumers;
    while (*link != consumer)
        link = &(*link)->next;
    *link = consumer->next;

    if (consumer->round != NULL)
        (void)munmap(consumer->round, bitmap_bytes(tracker->page_count));
    cleanup_fd(&consumer->fd);
    free(consumer->cut);
    free(consumer);
    stop_logging_if_unused(tracker);
}

int dirty_consumer_fd(const struct dirty_consumer *consumer)
{
    return consumer->fd;
}

bool dirty_consumer_is_incremental(const struct dirty_consumer *consumer)
{
    return consumer->is_incremental;
}

static void spread(struct dirty_tracker *tracker, size_t word, uint64_t bits)
{
    if (bits == 0)
        return;
    if (tracker->kept != NULL)
        tracker->kept[word] |= bits;
    for (struct dirty_consumer *each = tracker->consumers; each != NULL; each = each->next) {
        if (each->cut != NULL)
            each->cut[word] |= bits;
        bitmap_atomic_or_word(each->round, word, bits);
    }
}

/* Pages [first, end) of one region, whose bits in the bitmaps begin at `bitmap_word`. */
static struct err *harvest_chunk(struct dirty_tracker *tracker, size_t region, uint64_t first,
                                 uint64_t end, size_t bitmap_word)
{
    size_t word_first = (size_t)(first / BITMAP_WORD_BITS);
    size_t word_end = bitmap_words(end);
    uint64_t any = 0;

    for (size_t word = word_first; word < word_end; word++)
        any |= tracker->scratch[word];
    if (any != 0)
        TRY(tracker->log->ops->clear(tracker->log, region, first, end - first,
                                     tracker->scratch + word_first));

    uint64_t *marks = guest_memory_device_marks(tracker->memory) + bitmap_word;
    for (size_t word = word_first; word < word_end; word++)
        spread(tracker, bitmap_word + word,
               tracker->scratch[word] | bitmap_atomic_take_word(marks, word));
    return NULL;
}

static struct err *harvest_region(struct dirty_tracker *tracker, size_t region, uint64_t first,
                                  uint64_t end)
{
    const struct guest_region where = guest_memory_region(tracker->memory, region);
    uint64_t region_first = where.file_offset / PAGE_BYTES;
    uint64_t region_end = region_first + where.bytes / PAGE_BYTES;
    first = MAX(first, region_first);
    end = MIN(end, region_end);
    if (first >= end)
        return NULL;

    TRY(tracker->log->ops->get(tracker->log, region, tracker->scratch));
    for (uint64_t at = first; at < end; at += CLEAR_PAGES)
        TRY(harvest_chunk(tracker, region, at - region_first,
                          MIN(at + CLEAR_PAGES, end) - region_first,
                          (size_t)(region_first / BITMAP_WORD_BITS)));
    return NULL;
}

static struct err *harvest(struct dirty_tracker *tracker, uint64_t first, uint64_t count)
{
    if (count == 0)
        count = tracker->page_count - MIN(first, tracker->page_count);
    if (!range_is_within(first, count, tracker->page_count))
        return err_new(ERR_INVALID, "harvest: pages %llu and %llu on are not in 0..%llu",
                       (unsigned long long)first, (unsigned long long)count,
                       (unsigned long long)tracker->page_count);
    uint64_t end = MIN(align_up(first + count, BITMAP_WORD_BITS), tracker->page_count);
    first = align_down(first, BITMAP_WORD_BITS);

    for (size_t region = 0; region < guest_memory_region_count(tracker->memory); region++)
        TRY(harvest_region(tracker, region, first, end));
    return NULL;
}

struct err *dirty_consumer_harvest(struct dirty_consumer *consumer, uint64_t first, uint64_t count,
                                   uint64_t *out_dirty)
{
    TRY(harvest(consumer->tracker, first, count));
    *out_dirty = bitmap_count(consumer->round, consumer->tracker->page_count);
    return NULL;
}

struct err *dirty_consumer_mark_cut(struct dirty_consumer *consumer)
{
    uint64_t *cut = calloc(words_of(consumer->tracker), sizeof(uint64_t));
    if (cut == NULL)
        return err_new(ERR_NO_MEMORY, "dirty bitmap");
    free(consumer->cut);
    consumer->cut = cut;
    return NULL;
}

struct err *dirty_consumer_keep(struct dirty_consumer *consumer, const char *snapshot)
{
    struct dirty_tracker *tracker = consumer->tracker;

    if (consumer->cut == NULL)
        return err_new(ERR_STATE, "keep tracking for snapshot '%s': no cut was marked", snapshot);
    if (strlen(snapshot) == 0 || strlen(snapshot) > SNAPSHOT_ID_MAX)
        return err_new(ERR_INVALID, "keep tracking: the snapshot's name must have 1..%u bytes",
                       SNAPSHOT_ID_MAX);
    free(tracker->kept);
    tracker->kept = TAKE_PTR(consumer->cut);
    memcpy(tracker->kept_name, snapshot, strlen(snapshot) + 1);
    return NULL;
}
