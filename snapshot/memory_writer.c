/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_writer.c - see memory_writer.h.
 *
 * Appended pages collect in a batch, which is written as one piece. A batch is a copy: the caller's
 * page may be the memory of a running machine, and the checksum must be of the bytes that are
 * written. If the guest changes the page meanwhile, it is dirty again and comes back.
 *
 * Batches go around the page cache where the file system can do that, which takes a tenth of the
 * CPU and leaves the cache to others. Single pages that are rewritten go through it; the two never
 * meet on one page.
 */
#include "snapshot/memory_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "proto/page_index.h"
#include "proto/page_zero.h"

#define BATCH_PAGES 256u

struct memory_writer {
    int fd;        /* owned */
    int direct_fd; /* owned: the same file around the page cache; -1: not possible there */
    uint32_t file_number;
    struct page_index_builder *index; /* owned */
    uint64_t page_count;              /* of the machine */
    uint64_t written_pages;           /* in the file */
    uint64_t batch_pages;             /* behind them, in the batch */
    uint64_t zero_pages;
    uint8_t *batch; /* owned */
};

void memory_writer_destroy(struct memory_writer *writer)
{
    if (writer == NULL)
        return;
    cleanup_fd(&writer->fd);
    cleanup_fd(&writer->direct_fd);
    page_index_builder_destroy(writer->index);
    free(writer->batch);
    free(writer);
}

static int open_direct(int fd)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
}

struct err *memory_writer_create(int fd, uint64_t page_count, uint32_t file_number,
                                 struct page_index *parent, struct memory_writer **out_writer)
{
    CLEANUP(cleanup_fd) int owned_fd = fd;
    CLEANUP(cleanup_memory_writer) struct memory_writer *writer = calloc(1, sizeof(*writer));

    if (writer == NULL)
        return err_new(ERR_NO_MEMORY, "write a snapshot's memory");
    writer->fd = TAKE_FD(owned_fd);
    writer->direct_fd = open_direct(writer->fd);
    writer->file_number = file_number;
    writer->page_count = page_count;
    writer->batch = aligned_alloc(PAGE_BYTES, BATCH_PAGES * PAGE_BYTES);
    if (writer->batch == NULL)
        return err_new(ERR_NO_MEMORY, "write a snapshot's memory");
    TRY(page_index_builder_create(page_count, &writer->index));
    if (parent != NULL)
        TRY(page_index_builder_copy(writer->index, parent));
    *out_writer = TAKE_PTR(writer);
    return NULL;
}

static struct err *flush(struct memory_writer *writer)
{
    TRY(file_write_at(writer->direct_fd >= 0 ? writer->direct_fd : writer->fd, "memory",
                      writer->batch, writer->batch_pages * PAGE_BYTES,
                      writer->written_pages * PAGE_BYTES));
    writer->written_pages += writer->batch_pages;
    writer->batch_pages = 0;
    return NULL;
}

/* Where the page is in this part, or where it goes. */
static uint64_t place_of(struct memory_writer *writer, uint64_t page)
{
    struct page_location location = page_index_builder_get(writer->index, page);

    if (!location.is_zero && location.file == writer->file_number)
        return location.file_page;
    return writer->written_pages + writer->batch_pages;
}

struct err *memory_writer_put(struct memory_writer *writer, uint64_t page, const uint8_t *content)
{
    ASSERT(page < writer->page_count);
    uint64_t place = place_of(writer, page);
    bool is_in_file = place < writer->written_pages;
    uint8_t rewrite[PAGE_BYTES];
    uint8_t *copy =
        is_in_file ? rewrite : writer->batch + (place - writer->written_pages) * PAGE_BYTES;

    memcpy(copy, content, PAGE_BYTES);
    if (page_is_zero(copy)) {
        memory_writer_put_zero(writer, page);
        return NULL;
    }
    page_index_builder_set(writer->index, page,
                           (struct page_location){
                               .file = writer->file_number,
                               .file_page = place,
                               .checksum = XXH3_64bits(copy, PAGE_BYTES),
                           });
    if (is_in_file)
        return file_write_at(writer->fd, "memory", copy, PAGE_BYTES, place * PAGE_BYTES);
    if (place == writer->written_pages + writer->batch_pages)
        writer->batch_pages++;
    return writer->batch_pages == BATCH_PAGES ? flush(writer) : NULL;
}

void memory_writer_put_zero(struct memory_writer *writer, uint64_t page)
{
    writer->zero_pages++;
    page_index_builder_set(writer->index, page, (struct page_location){.is_zero = true});
}

struct err *memory_writer_finish(struct memory_writer *writer)
{
    TRY(flush(writer));
    return file_sync(writer->fd, "memory");
}

struct err *memory_writer_write_index(struct memory_writer *writer, int fd, uint64_t *out_checksum)
{
    ASSERT(writer->batch_pages == 0);
    TRY(page_index_builder_write(writer->index, writer->file_number + 1, fd, "index",
                                 out_checksum));
    return file_sync(fd, "index");
}

uint64_t memory_writer_page_count(const struct memory_writer *writer)
{
    return writer->written_pages + writer->batch_pages;
}

uint64_t memory_writer_zero_count(const struct memory_writer *writer)
{
    return writer->zero_pages;
}
