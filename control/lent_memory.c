/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lent_memory.c - maps what a machine lends, after checking that the mappings hold what was said.
 * Tested by: machine_fake_test.c
 */
#include "control/lent_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "control/control_client.h"

struct lent_memory {
    int fd; /* owned */
    uint8_t *base;
    uint64_t *dirty;
    uint64_t page_count;
    bool is_incremental;
};

DEFINE_CLEANUP(lent_memory, struct lent_memory, lent_memory_return)

static void reply_free(Ferry__ControlReply *reply)
{
    if (reply != NULL)
        ferry__control_reply__free_unpacked(reply, NULL);
}
DEFINE_CLEANUP(reply, Ferry__ControlReply, reply_free)

static void cleanup_fds(struct control_fds *fds)
{
    for (size_t i = 0; i < fds->count; i++)
        cleanup_fd(&fds->fds[i]);
}

void lent_memory_return(struct lent_memory *memory)
{
    if (memory == NULL)
        return;
    if (memory->dirty != NULL)
        (void)munmap(memory->dirty, bitmap_bytes(memory->page_count));
    if (memory->base != NULL)
        (void)munmap(memory->base, memory->page_count * PAGE_BYTES);
    cleanup_fd(&memory->fd);
    free(memory);
}

/* The regions follow each other through the whole file. */
static struct err *count_pages(const Ferry__ControlMemory *lent, uint64_t *out_pages)
{
    uint64_t bytes = 0;
    if (lent->n_regions == 0 || lent->n_regions > MACHINE_REGIONS_MAX)
        return err_new(ERR_INVALID, "memory of %zu regions; expected 1..%u", lent->n_regions,
                       MACHINE_REGIONS_MAX);
    for (size_t i = 0; i < lent->n_regions; i++) {
        const Ferry__MemoryRegion *region = lent->regions[i];
        if (region->file_offset != bytes || region->bytes % PAGE_BYTES != 0 || region->bytes == 0 ||
            region->bytes > MACHINE_MEMORY_MIB_MAX * MIB - bytes)
            return err_new(ERR_INVALID, "memory region %zu does not follow the one before it", i);
        bytes += region->bytes;
    }
    *out_pages = bytes / PAGE_BYTES;
    return NULL;
}

static struct err *map_file(int fd, const char *what, uint64_t bytes, int protection,
                            void **out_memory)
{
    uint64_t file_bytes;
    TRY(file_size(fd, what, &file_bytes));
    if (file_bytes < bytes) /* touching what is missing would be a SIGBUS */
        return err_new(ERR_INVALID, "%s of %llu bytes; expected %llu", what,
                       (unsigned long long)file_bytes, (unsigned long long)bytes);
    void *memory = mmap(NULL, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (memory == MAP_FAILED)
        return err_errno(errno, "map %s", what);
    *out_memory = memory;
    return NULL;
}

static struct err *map_lent(const Ferry__ControlMemory *lent, struct control_fds *fds,
                            bool is_incoming, struct lent_memory **out_memory)
{
    if (fds->count != (is_incoming ? 1u : 2u))
        return err_new(ERR_INVALID, "memory with %zu descriptors", fds->count);
    CLEANUP(cleanup_lent_memory) struct lent_memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL)
        return err_new(ERR_NO_MEMORY, "lent memory");
    memory->fd = -1;
    memory->is_incremental = lent->is_incremental;
    TRY(count_pages(lent, &memory->page_count));

    void *base, *dirty;
    TRY(map_file(fds->fds[0], "guest memory", memory->page_count * PAGE_BYTES,
                 is_incoming ? PROT_READ | PROT_WRITE : PROT_READ, &base));
    memory->base = base;
    memory->fd = TAKE_FD(fds->fds[0]);
    if (!is_incoming) {
        TRY(map_file(fds->fds[1], "dirty bitmap", bitmap_bytes(memory->page_count),
                     PROT_READ | PROT_WRITE, &dirty));
        memory->dirty = dirty;
    }
    *out_memory = TAKE_PTR(memory);
    return NULL;
}

struct err *lent_memory_borrow(struct control_client *client, Ferry__LendPurpose purpose,
                               const char *parent_snapshot, struct lent_memory **out_memory)
{
    Ferry__ControlLendMemory lend = FERRY__CONTROL_LEND_MEMORY__INIT;
    Ferry__ControlRequest request = FERRY__CONTROL_REQUEST__INIT;
    lend.purpose = purpose;
    if (parent_snapshot != NULL)
        lend.parent_snapshot = (char *)parent_snapshot;
    request.call_case = FERRY__CONTROL_REQUEST__CALL_LEND_MEMORY;
    request.lend_memory = &lend;

    CLEANUP(cleanup_reply) Ferry__ControlReply *reply = NULL;
    CLEANUP(cleanup_fds) struct control_fds fds = {0};
    TRY(control_client_call(client, &request, NULL, 0, &fds, &reply));
    if (reply->result_case != FERRY__CONTROL_REPLY__RESULT_MEMORY)
        return err_new(ERR_INVALID, "the machine lends no memory");
    struct err *err =
        map_lent(reply->memory, &fds, purpose == FERRY__LEND_PURPOSE__LEND_INCOMING, out_memory);
    return err == NULL ? NULL : err_wrap(err, "borrow the machine's memory");
}

uint64_t lent_memory_page_count(const struct lent_memory *memory)
{
    return memory->page_count;
}

uint8_t *lent_memory_base(const struct lent_memory *memory)
{
    return memory->base;
}

int lent_memory_fd(const struct lent_memory *memory)
{
    return memory->fd;
}

bool lent_memory_is_incremental(const struct lent_memory *memory)
{
    return memory->is_incremental;
}

uint64_t *lent_memory_dirty(const struct lent_memory *memory)
{
    return memory->dirty;
}

struct err *lent_memory_next_data(const struct lent_memory *memory, uint64_t from,
                                  uint64_t *out_first, uint64_t *out_count)
{
    uint64_t end = memory->page_count * PAGE_BYTES;
    if (from >= memory->page_count) {
        *out_first = memory->page_count;
        *out_count = 0;
        return NULL;
    }

    off_t data = lseek(memory->fd, (off_t)(from * PAGE_BYTES), SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return err_errno(errno, "look for data in guest memory");
    if (data < 0 || (uint64_t)data >= end) {
        *out_first = memory->page_count;
        *out_count = 0;
        return NULL;
    }
    off_t hole = lseek(memory->fd, data, SEEK_HOLE);
    if (hole < 0)
        return err_errno(errno, "look for a hole in guest memory");
    uint64_t first = (uint64_t)data / PAGE_BYTES;
    *out_first = first;
    *out_count = divide_up(MIN((uint64_t)hole, end), PAGE_BYTES) - first;
    return NULL;
}
