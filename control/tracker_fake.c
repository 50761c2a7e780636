/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tracker_fake.c - see tracker_fake.h.
 */
#include "control/tracker_fake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"

struct borrower {
    unsigned connection; /* 0: unused */
    int bitmap_fd;       /* owned */
    uint64_t *bitmap;    /* owned; shared with the borrower's process */
    uint64_t *since_cut; /* owned; NULL before mark_cut */
};

struct tracker_fake {
    uint64_t page_count;
    uint64_t *log;            /* owned; marks that nobody has harvested */
    uint64_t *since_snapshot; /* owned; NULL: no snapshot was kept */
    char *snapshot;           /* owned; what since_snapshot counts from */
    struct borrower borrowers[CONTROL_CLIENTS_MAX];
};

DEFINE_CLEANUP(tracker, struct tracker_fake, tracker_fake_destroy)

struct err *tracker_fake_create(uint64_t page_count, struct tracker_fake **out_tracker)
{
    CLEANUP(cleanup_tracker) struct tracker_fake *tracker = calloc(1, sizeof(*tracker));
    if (tracker == NULL)
        return err_new(ERR_NO_MEMORY, "dirty tracker");
    tracker->page_count = page_count;
    tracker->log = calloc(bitmap_words(page_count), sizeof(uint64_t));
    if (tracker->log == NULL)
        return err_new(ERR_NO_MEMORY, "dirty log of %" PRIu64 " pages", page_count);
    *out_tracker = TAKE_PTR(tracker);
    return NULL;
}

static void borrower_finish(const struct tracker_fake *tracker, struct borrower *borrower)
{
    if (borrower->connection == 0)
        return;
    if (borrower->bitmap != NULL)
        (void)munmap(borrower->bitmap, bitmap_bytes(tracker->page_count));
    cleanup_fd(&borrower->bitmap_fd);
    free(borrower->since_cut);
    *borrower = (struct borrower){0};
}

void tracker_fake_destroy(struct tracker_fake *tracker)
{
    if (tracker == NULL)
        return;
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        borrower_finish(tracker, &tracker->borrowers[i]);
    free(tracker->log);
    free(tracker->since_snapshot);
    free(tracker->snapshot);
    free(tracker);
}

void tracker_fake_mark(struct tracker_fake *tracker, uint64_t page)
{
    bitmap_atomic_set(tracker->log, page);
}

/* Bits leave the log before they reach the bitmaps, so that a page written in between is marked
 * again for the next harvest. */
static void harvest_words(struct tracker_fake *tracker, size_t first, size_t end)
{
    for (size_t word = first; word < end; word++) {
        uint64_t bits = bitmap_atomic_take_word(tracker->log, word);
        if (bits == 0)
            continue;
        if (tracker->since_snapshot != NULL)
            tracker->since_snapshot[word] |= bits;
        for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++) {
            struct borrower *borrower = &tracker->borrowers[i];
            if (borrower->bitmap != NULL)
                bitmap_atomic_or_word(borrower->bitmap, word, bits);
            if (borrower->since_cut != NULL)
                borrower->since_cut[word] |= bits;
        }
    }
}

static struct borrower *find_borrower(struct tracker_fake *tracker, unsigned connection)
{
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (tracker->borrowers[i].connection == connection)
            return &tracker->borrowers[i];
    return NULL;
}

static struct err *get_borrower(struct tracker_fake *tracker, unsigned connection,
                                struct borrower **out_borrower)
{
    *out_borrower = find_borrower(tracker, connection);
    return *out_borrower != NULL ? NULL
                                 : err_new(ERR_STATE, "memory is not lent to this connection");
}

static struct err *make_bitmap(struct tracker_fake *tracker, struct borrower *borrower)
{
    size_t bytes = bitmap_bytes(tracker->page_count);
    borrower->bitmap_fd = memfd_create("dirty-bitmap", MFD_CLOEXEC);
    if (borrower->bitmap_fd < 0 || ftruncate(borrower->bitmap_fd, (off_t)bytes) != 0)
        return err_errno(errno, "dirty bitmap of %zu bytes", bytes);
    void *bitmap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, borrower->bitmap_fd, 0);
    if (bitmap == MAP_FAILED)
        return err_errno(errno, "map a dirty bitmap of %zu bytes", bytes);
    borrower->bitmap = bitmap;
    return NULL;
}

struct err *tracker_fake_lend(struct tracker_fake *tracker, unsigned connection,
                              const char *parent_snapshot, int *out_bitmap_fd,
                              bool *out_is_incremental)
{
    if (find_borrower(tracker, connection) != NULL)
        return err_new(ERR_STATE, "memory is lent to this connection already");
    struct borrower *borrower = find_borrower(tracker, 0);
    if (borrower == NULL)
        return err_new(ERR_STATE, "memory is lent to %u connections already", CONTROL_CLIENTS_MAX);
    borrower->connection = connection;
    struct err *err = make_bitmap(tracker, borrower);
    if (err != NULL) {
        borrower_finish(tracker, borrower);
        return err;
    }

    harvest_words(tracker, 0, bitmap_words(tracker->page_count));
    bool is_incremental = parent_snapshot != NULL && tracker->snapshot != NULL &&
                          strcmp(parent_snapshot, tracker->snapshot) == 0;
    if (is_incremental)
        memcpy(borrower->bitmap, tracker->since_snapshot, bitmap_bytes(tracker->page_count));
    else
        bitmap_set_range(borrower->bitmap, 0, tracker->page_count);
    *out_bitmap_fd = borrower->bitmap_fd;
    *out_is_incremental = is_incremental;
    return NULL;
}

void tracker_fake_return(struct tracker_fake *tracker, unsigned connection)
{
    struct borrower *borrower = find_borrower(tracker, connection);
    if (borrower != NULL)
        borrower_finish(tracker, borrower);
}

unsigned tracker_fake_borrowers(const struct tracker_fake *tracker)
{
    unsigned count = 0;
    for (size_t i = 0; i < CONTROL_CLIENTS_MAX; i++)
        count += tracker->borrowers[i].connection != 0;
    return count;
}

struct err *tracker_fake_harvest(struct tracker_fake *tracker, unsigned connection,
                                 uint64_t first_page, uint64_t page_count, uint64_t *out_dirty)
{
    struct borrower *borrower;
    TRY(get_borrower(tracker, connection, &borrower));
    if (page_count == 0)
        page_count = first_page == 0 ? tracker->page_count : 0;
    if (page_count == 0 || !range_is_within(first_page, page_count, tracker->page_count))
        return err_new(ERR_INVALID,
                       "harvest of pages %" PRIu64 "+%" PRIu64 " of a memory of %" PRIu64,
                       first_page, page_count, tracker->page_count);

    /* Whole words: more than asked for is always right. */
    harvest_words(tracker, first_page / BITMAP_WORD_BITS, bitmap_words(first_page + page_count));
    *out_dirty = bitmap_count(borrower->bitmap, tracker->page_count);
    return NULL;
}

struct err *tracker_fake_mark_cut(struct tracker_fake *tracker, unsigned connection)
{
    struct borrower *borrower;
    TRY(get_borrower(tracker, connection, &borrower));
    uint64_t *since_cut = calloc(bitmap_words(tracker->page_count), sizeof(uint64_t));
    if (since_cut == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap of changes since the cut");
    free(TAKE_PTR(borrower->since_cut));
    harvest_words(tracker, 0, bitmap_words(tracker->page_count));
    borrower->since_cut = since_cut;
    return NULL;
}

struct err *tracker_fake_keep(struct tracker_fake *tracker, unsigned connection,
                              const char *snapshot)
{
    struct borrower *borrower;
    TRY(get_borrower(tracker, connection, &borrower));
    if (borrower->since_cut == NULL)
        return err_new(ERR_STATE, "keep tracking without a cut");
    char *name = strdup(snapshot);
    if (name == NULL)
        return err_new(ERR_NO_MEMORY, "name of a snapshot");
    free(tracker->snapshot);
    free(tracker->since_snapshot);
    tracker->snapshot = name;
    tracker->since_snapshot = TAKE_PTR(borrower->since_cut);
    return NULL;
}
