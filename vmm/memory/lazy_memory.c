/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lazy_memory.c - see lazy_memory.h.
 *
 * Two threads fill the memory, each with an index reader and a buffer of its own:
 *
 *     faults   sleeps until a vCPU or a device touches a page that is not there, and loads that
 *              page and its neighbours (64 KiB), since the next ones are likely to be touched too
 *     ahead    walks the memory from its start to its end
 *
 * They need not agree on who loads a page: filling one that is present changes nothing. Every page
 * is compared with its checksum before it is filled. Zero pages are filled only when somebody
 * waits for one; ahead leaves them holes, and ends the watch when it is done, which makes them
 * zero. A damaged page ends the loading ahead and makes the machine fail; faults goes on, so that
 * nobody waits for ever, and poisons what is damaged.
 */
#include "vmm/memory/lazy_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "base/thread.h"
#include "proto/page_index.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/memory/page_faults.h"

#define AROUND_PAGES 16u
#define AHEAD_PAGES  256u

/* What one thread loads with. */
struct loader {
    struct lazy_memory *lazy;
    struct page_index *index; /* owned */
    uint8_t *buffer;          /* owned: AHEAD_PAGES */
    struct thread *thread;    /* owned; NULL: not started */
};

struct lazy_memory {
    void (*on_end)(void *context, struct err *err);
    void *context;
    struct guest_memory *memory;
    struct page_faults *faults; /* owned; NULL: loaded at once */
    int *page_fds;              /* owned, each and the array */
    size_t page_fd_count;
    int stop_fd; /* owned: an eventfd */
    struct loader demand;
    struct loader ahead;
    uint64_t page_count;
    _Atomic uint64_t ahead_page; /* all before it is loaded; only told to people: relaxed */
    atomic_bool is_stopping;     /* ends ahead soon; relaxed, thread_join orders the rest */
    atomic_flag has_ended;       /* who sets it calls on_end */
};

static void loader_finish(struct loader *loader)
{
    thread_join(loader->thread);
    page_index_close(loader->index);
    free(loader->buffer);
}

void lazy_memory_destroy(struct lazy_memory *lazy)
{
    if (lazy == NULL)
        return;
    atomic_store_explicit(&lazy->is_stopping, true, memory_order_relaxed);
    if (lazy->stop_fd >= 0)
        (void)!write(lazy->stop_fd, &(uint64_t){1}, sizeof(uint64_t));
    loader_finish(&lazy->demand);
    loader_finish(&lazy->ahead);
    page_faults_close(lazy->faults);
    for (size_t i = 0; i < lazy->page_fd_count; i++)
        cleanup_fd(&lazy->page_fds[i]);
    free(lazy->page_fds);
    cleanup_fd(&lazy->stop_fd);
    free(lazy);
}

DEFINE_CLEANUP(lazy_memory, struct lazy_memory, lazy_memory_destroy)

uint64_t lazy_memory_left_bytes(const struct lazy_memory *lazy)
{
    uint64_t loaded = atomic_load_explicit(&lazy->ahead_page, memory_order_relaxed);

    return (lazy->page_count - loaded) * PAGE_BYTES;
}

static void end(struct lazy_memory *lazy, struct err *err)
{
    if (atomic_flag_test_and_set(&lazy->has_ended))
        err_free(err);
    else
        lazy->on_end(lazy->context, err);
}

static struct err *read_run(struct loader *loader, uint64_t first, struct page_location location,
                            uint64_t run, uint8_t *out_data)
{
    TRY(file_read_at(loader->lazy->page_fds[location.file], "the snapshot's memory", out_data,
                     run * PAGE_BYTES, location.file_page * PAGE_BYTES));
    for (uint64_t i = 0; i < run; i++) {
        struct page_location page;
        TRY(page_index_find(loader->index, first + i, &page));
        if (XXH3_64bits(out_data + i * PAGE_BYTES, PAGE_BYTES) != page.checksum)
            return err_new(ERR_INVALID,
                           "memory page %" PRIu64 " of the snapshot is damaged; vm-snapshot verify "
                           "tells all that is",
                           first + i);
    }
    return NULL;
}

/* Loads what is not zero in a range that fits the buffer. */
static struct err *load_range(struct loader *loader, uint64_t first, uint64_t count)
{
    uint8_t *mapping = guest_memory_mapping(loader->lazy->memory);

    ASSERT(count <= AHEAD_PAGES);
    for (uint64_t at = 0; at < count;) {
        struct page_location location;
        uint64_t run = 0;
        TRY(page_index_find_run(loader->index, first + at, count - at, &location, &run));
        uint64_t offset = (first + at) * PAGE_BYTES;
        at += run;
        if (location.is_zero)
            continue;
        if (loader->lazy->faults == NULL) {
            TRY(read_run(loader, first + at - run, location, run, mapping + offset));
            continue;
        }
        TRY(read_run(loader, first + at - run, location, run, loader->buffer));
        TRY(page_faults_fill(loader->lazy->faults, offset, loader->buffer, run * PAGE_BYTES));
    }
    return NULL;
}

static struct err *load_ahead(struct loader *loader)
{
    struct lazy_memory *lazy = loader->lazy;

    for (uint64_t page = 0; page < lazy->page_count;) {
        uint64_t count = MIN((uint64_t)AHEAD_PAGES, lazy->page_count - page);
        if (atomic_load_explicit(&lazy->is_stopping, memory_order_relaxed))
            return err_new(ERR_CANCELLED, "load the snapshot's memory");
        TRY(load_range(loader, page, count));
        page += count;
        atomic_store_explicit(&lazy->ahead_page, page, memory_order_relaxed);
    }
    return NULL;
}

static void ahead_main(void *argument)
{
    struct loader *loader = argument;

    struct err *err = load_ahead(loader);
    if (err == NULL)
        page_faults_end(loader->lazy->faults);
    if (err != NULL && err_kind(err) == ERR_CANCELLED)
        err_free(err);
    else
        end(loader->lazy, err);
}

/* The page alone if its neighbours can not be loaded: damage there is not this one's. */
static struct err *load_wanted(struct loader *loader, uint64_t page)
{
    struct lazy_memory *lazy = loader->lazy;
    uint64_t first = align_down(page, AROUND_PAGES);
    struct page_location location;

    struct err *err =
        load_range(loader, first, MIN(lazy->page_count - first, (uint64_t)AROUND_PAGES));
    if (err != NULL) {
        err_free(err);
        TRY(load_range(loader, page, 1));
    }
    TRY(page_index_find(loader->index, page, &location));
    return location.is_zero ? page_faults_fill_zero(lazy->faults, page * PAGE_BYTES, PAGE_BYTES)
                            : NULL;
}

static void demand_main(void *argument)
{
    struct loader *loader = argument;
    struct lazy_memory *lazy = loader->lazy;
    struct pollfd polled[] = {{.fd = page_faults_fd(lazy->faults), .events = POLLIN},
                              {.fd = lazy->stop_fd, .events = POLLIN}};

    while (polled[1].revents == 0) {
        uint64_t offset = 0;
        if (poll(polled, ARRAY_COUNT(polled), -1) < 0 && errno != EINTR)
            UNREACHABLE();
        while (page_faults_take(lazy->faults, &offset)) {
            struct err *err = load_wanted(loader, offset / PAGE_BYTES);
            if (err != NULL) {
                page_faults_poison(lazy->faults, offset, PAGE_BYTES);
                end(lazy, err);
            }
        }
    }
}

static struct err *loader_init(struct loader *loader, struct lazy_memory *lazy, int index_fd,
                               uint64_t index_checksum)
{
    loader->lazy = lazy;
    loader->buffer = malloc(AHEAD_PAGES * PAGE_BYTES);
    if (loader->buffer == NULL)
        return err_new(ERR_NO_MEMORY, "load a snapshot's memory");
    TRY(page_index_open(index_fd, "of the snapshot", index_checksum, &loader->index));
    if (page_index_page_count(loader->index) != lazy->page_count ||
        page_index_file_count(loader->index) != lazy->page_fd_count)
        return err_new(ERR_INVALID,
                       "the page index is of %" PRIu64
                       " pages in %u files; the machine has %" PRIu64
                       " pages and was given %zu files",
                       page_index_page_count(loader->index), page_index_file_count(loader->index),
                       lazy->page_count, lazy->page_fd_count);
    return NULL;
}

static struct err *duplicate_fds(struct lazy_memory *lazy, const int *fds, size_t count)
{
    lazy->page_fds = calloc(count + 1, sizeof(*lazy->page_fds));
    if (lazy->page_fds == NULL)
        return err_new(ERR_NO_MEMORY, "load a snapshot's memory");
    for (; lazy->page_fd_count < count; lazy->page_fd_count++) {
        int fd = fcntl(fds[lazy->page_fd_count], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return err_errno(errno, "duplicate a page file's descriptor");
        lazy->page_fds[lazy->page_fd_count] = fd;
    }
    return NULL;
}

/* A page that is there already would keep its content instead of the snapshot's. */
static struct err *check_untouched(struct guest_memory *memory)
{
    if (lseek(guest_memory_fd(memory), 0, SEEK_DATA) >= 0 || errno != ENXIO)
        return err_new(ERR_STATE, "load a snapshot's memory: the machine's is in use already");
    return NULL;
}

static struct err *start_threads(struct lazy_memory *lazy)
{
    TRY(thread_create(ROLE_LOADER, 0, demand_main, &lazy->demand, &lazy->demand.thread));
    return thread_create(ROLE_LOADER, 1, ahead_main, &lazy->ahead, &lazy->ahead.thread);
}

static struct err *load_at_once(struct lazy_memory *lazy)
{
    TRY(load_ahead(&lazy->ahead));
    end(lazy, NULL);
    return NULL;
}

struct err *lazy_memory_start(struct guest_memory *memory, uint64_t index_checksum,
                              struct lazy_files files,
                              void (*on_end)(void *context, struct err *err), void *context,
                              struct lazy_memory **out_lazy)
{
    CLEANUP(cleanup_lazy_memory) struct lazy_memory *lazy = calloc(1, sizeof(*lazy));

    if (lazy == NULL)
        return err_new(ERR_NO_MEMORY, "load a snapshot's memory");
    lazy->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (lazy->stop_fd < 0)
        return err_errno(errno, "create an event for loading memory");
    if (files.count < 2)
        return err_new(ERR_INVALID, "load a snapshot's memory: %zu descriptors", files.count);
    lazy->memory = memory;
    lazy->on_end = on_end;
    lazy->context = context;
    lazy->page_count = guest_memory_page_count(memory);
    TRY(check_untouched(memory));
    TRY(duplicate_fds(lazy, files.fds + 1, files.count - 1));
    TRY(loader_init(&lazy->demand, lazy, files.fds[0], index_checksum));
    TRY(loader_init(&lazy->ahead, lazy, files.fds[0], index_checksum));

    struct err *err = page_faults_open(guest_memory_mapping(memory), lazy->page_count * PAGE_BYTES,
                                       &lazy->faults);
    if (err != NULL && err_kind(err) == ERR_DENIED) {
        err_free(err);
        err = load_at_once(lazy);
    } else if (err == NULL) {
        err = start_threads(lazy);
    }
    if (err == NULL)
        *out_lazy = TAKE_PTR(lazy);
    return err;
}
