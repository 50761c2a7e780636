/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_index.c - the flat page index of a snapshot: layout in page_index.h.
 *
 * A reader trusts nothing but the head's checksum, which comes from the manifest. The head vouches
 * for the sums table, which is small and checked at opening; the table vouches for each chunk of
 * entries, which is checked when it is first used; and each entry carries its page's checksum.
 */
#include "proto/page_index.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"

#define MAGIC          "FERRYIDX"
#define MAGIC_BYTES    8u
#define FORMAT_VERSION 1u
#define HEAD_BYTES     4096u
#define ENTRY_BYTES    16u
#define SUM_BYTES      8u
#define FILE_SHIFT     48
#define FILE_PAGE_MASK (((uint64_t)1 << FILE_SHIFT) - 1)
#define PAGES_MAX      (MACHINE_MEMORY_MIB_MAX * (MIB / PAGE_BYTES))
#define CHUNK_BYTES    ((uint64_t)PAGE_INDEX_CHUNK_ENTRIES * ENTRY_BYTES)

/* Where the parts of an index of so many pages are. */
struct layout {
    uint64_t page_count;
    uint64_t chunk_count;
    uint64_t entries_offset;
    uint64_t file_bytes;
};

struct page_index {
    char *name;          /* owned */
    const uint8_t *data; /* owned mapping of the whole file */
    struct layout layout;
    uint32_t file_count;
    uint64_t *verified; /* owned; one bit a chunk */
};

struct page_index_builder {
    uint64_t page_count;
    uint8_t *entries; /* owned; as in the file */
};

DEFINE_CLEANUP(index, struct page_index, page_index_close)

static struct layout layout_of(uint64_t page_count)
{
    struct layout layout = {.page_count = page_count};
    layout.chunk_count = divide_up(page_count, PAGE_INDEX_CHUNK_ENTRIES);
    layout.entries_offset = HEAD_BYTES + align_up(layout.chunk_count * SUM_BYTES, HEAD_BYTES);
    layout.file_bytes = layout.entries_offset + page_count * ENTRY_BYTES;
    return layout;
}

static size_t chunk_bytes(const struct layout *layout, uint64_t chunk)
{
    uint64_t first = chunk * PAGE_INDEX_CHUNK_ENTRIES;
    return MIN(layout->page_count - first, (uint64_t)PAGE_INDEX_CHUNK_ENTRIES) * ENTRY_BYTES;
}

/* Every way in which the head can be wrong is one error: its checksum has been right. */
static struct err *parse_head(struct page_index *index, uint64_t file_bytes,
                              uint64_t *out_sums_checksum)
{
    struct reader in = reader_of(index->data, HEAD_BYTES);
    const uint8_t *magic = reader_take(&in, MAGIC_BYTES);
    uint32_t version = reader_le32(&in);
    index->file_count = reader_le32(&in);
    uint64_t page_count = reader_le64(&in);
    uint64_t chunk_count = reader_le64(&in);
    *out_sums_checksum = reader_le64(&in);

    if (memcmp(magic, MAGIC, MAGIC_BYTES) != 0)
        return err_new(ERR_INVALID, "page index '%s': not a page index", index->name);
    if (version != FORMAT_VERSION)
        return err_new(ERR_INCOMPATIBLE, "page index '%s': format %u; this program reads %u",
                       index->name, version, FORMAT_VERSION);
    if (page_count == 0 || page_count > PAGES_MAX || index->file_count > UINT16_MAX)
        return err_new(ERR_INVALID, "page index '%s': %" PRIu64 " pages in %u files", index->name,
                       page_count, index->file_count);
    index->layout = layout_of(page_count);
    if (chunk_count != index->layout.chunk_count || file_bytes != index->layout.file_bytes)
        return err_new(ERR_INVALID, "page index '%s': %" PRIu64 " bytes; expected %" PRIu64,
                       index->name, file_bytes, index->layout.file_bytes);
    return NULL;
}

/* Maps file_bytes, which page_index_close must unmap before the layout is known. */
static struct err *map_and_check(int fd, uint64_t file_bytes, uint64_t head_checksum,
                                 struct page_index *index)
{
    index->layout.file_bytes = file_bytes;
    void *data = mmap(NULL, file_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return err_errno(errno, "map page index '%s'", index->name);
    index->data = data;
    if (XXH3_64bits(index->data, HEAD_BYTES) != head_checksum)
        return err_new(ERR_INVALID, "page index '%s' is damaged, or not the one that belongs here",
                       index->name);

    uint64_t sums_checksum;
    struct err *err = parse_head(index, file_bytes, &sums_checksum);
    if (err != NULL) {
        index->layout.file_bytes = file_bytes;
        return err;
    }
    if (XXH3_64bits(index->data + HEAD_BYTES, index->layout.chunk_count * SUM_BYTES) !=
        sums_checksum)
        return err_new(ERR_INVALID, "page index '%s' is damaged in its table of checksums",
                       index->name);
    return NULL;
}

struct err *page_index_open(int fd, const char *name, uint64_t head_checksum,
                            struct page_index **out_index)
{
    uint64_t file_bytes;
    TRY(file_size(fd, name, &file_bytes));
    if (file_bytes < HEAD_BYTES)
        return err_new(ERR_INVALID, "page index '%s': %" PRIu64 " bytes only", name, file_bytes);

    CLEANUP(cleanup_index) struct page_index *index = calloc(1, sizeof(*index));
    if (index != NULL)
        index->name = strdup(name);
    if (index == NULL || index->name == NULL)
        return err_new(ERR_NO_MEMORY, "page index '%s'", name);
    TRY(map_and_check(fd, file_bytes, head_checksum, index));
    index->verified = calloc(bitmap_words(index->layout.chunk_count), sizeof(uint64_t));
    if (index->verified == NULL)
        return err_new(ERR_NO_MEMORY, "page index '%s'", name);
    *out_index = TAKE_PTR(index);
    return NULL;
}

void page_index_close(struct page_index *index)
{
    if (index == NULL)
        return;
    if (index->data != NULL)
        (void)munmap((void *)(uintptr_t)index->data, index->layout.file_bytes);
    free(index->verified);
    free(index->name);
    free(index);
}

uint64_t page_index_page_count(const struct page_index *index)
{
    return index->layout.page_count;
}

uint32_t page_index_file_count(const struct page_index *index)
{
    return index->file_count;
}

static struct err *verify_chunk(struct page_index *index, uint64_t chunk)
{
    struct reader sums = reader_of(index->data + HEAD_BYTES + chunk * SUM_BYTES, SUM_BYTES);
    const uint8_t *entries = index->data + index->layout.entries_offset + chunk * CHUNK_BYTES;

    if (XXH3_64bits(entries, chunk_bytes(&index->layout, chunk)) != reader_le64(&sums))
        return err_new(ERR_INVALID, "page index '%s' is damaged at pages %" PRIu64 "..",
                       index->name, chunk * PAGE_INDEX_CHUNK_ENTRIES);
    bitmap_set(index->verified, chunk);
    return NULL;
}

static struct page_location parse_entry(const uint8_t *entry)
{
    struct reader in = reader_of(entry, ENTRY_BYTES);
    uint64_t place = reader_le64(&in);
    uint64_t checksum = reader_le64(&in);
    if ((place & FILE_PAGE_MASK) == 0)
        return (struct page_location){.is_zero = place == 0, .file = UINT32_MAX};
    return (struct page_location){
        .file = (uint32_t)(place >> FILE_SHIFT),
        .file_page = (place & FILE_PAGE_MASK) - 1,
        .checksum = checksum,
    };
}

struct err *page_index_find(struct page_index *index, uint64_t page,
                            struct page_location *out_location)
{
    if (page >= index->layout.page_count)
        return err_new(ERR_INVALID, "page index '%s': page %" PRIu64 " of %" PRIu64, index->name,
                       page, index->layout.page_count);
    uint64_t chunk = page / PAGE_INDEX_CHUNK_ENTRIES;
    if (!bitmap_test(index->verified, chunk))
        TRY(verify_chunk(index, chunk));

    struct page_location location =
        parse_entry(index->data + index->layout.entries_offset + page * ENTRY_BYTES);
    if (!location.is_zero && location.file >= index->file_count)
        return err_new(ERR_INVALID,
                       "page index '%s': page %" PRIu64 " is in a file that is not listed",
                       index->name, page);
    *out_location = location;
    return NULL;
}

static bool follows(struct page_location first, struct page_location next, uint64_t distance)
{
    if (first.is_zero || next.is_zero)
        return first.is_zero && next.is_zero;
    return next.file == first.file && next.file_page == first.file_page + distance;
}

struct err *page_index_find_run(struct page_index *index, uint64_t page, uint64_t count_max,
                                struct page_location *out_location, uint64_t *out_count)
{
    uint64_t count = 1;

    TRY(page_index_find(index, page, out_location));
    for (; count < count_max; count++) {
        struct page_location next;
        TRY(page_index_find(index, page + count, &next));
        if (!follows(*out_location, next, count))
            break;
    }
    *out_count = count;
    return NULL;
}

struct err *page_index_builder_create(uint64_t page_count, struct page_index_builder **out_builder)
{
    if (page_count == 0 || page_count > PAGES_MAX)
        return err_new(ERR_INVALID, "page index of %" PRIu64 " pages", page_count);
    CLEANUP(cleanup_free) struct page_index_builder *builder = calloc(1, sizeof(*builder));
    if (builder != NULL)
        builder->entries = calloc(page_count, ENTRY_BYTES);
    if (builder == NULL || builder->entries == NULL)
        return err_new(ERR_NO_MEMORY, "page index of %" PRIu64 " pages", page_count);
    builder->page_count = page_count;
    *out_builder = TAKE_PTR(builder);
    return NULL;
}

void page_index_builder_destroy(struct page_index_builder *builder)
{
    if (builder == NULL)
        return;
    free(builder->entries);
    free(builder);
}

struct err *page_index_builder_copy(struct page_index_builder *builder, struct page_index *from)
{
    if (from->layout.page_count != builder->page_count)
        return err_new(ERR_INVALID, "page index '%s': %" PRIu64 " pages; expected %" PRIu64,
                       from->name, from->layout.page_count, builder->page_count);
    for (uint64_t page = 0; page < builder->page_count; page++) {
        struct page_location location;
        TRY(page_index_find(from, page, &location));
        page_index_builder_set(builder, page, location);
    }
    return NULL;
}

struct page_location page_index_builder_get(const struct page_index_builder *builder, uint64_t page)
{
    ASSERT(page < builder->page_count);
    return parse_entry(builder->entries + page * ENTRY_BYTES);
}

void page_index_builder_set(struct page_index_builder *builder, uint64_t page,
                            struct page_location location)
{
    ASSERT(page < builder->page_count);
    ASSERT(location.is_zero || (location.file < UINT16_MAX && location.file_page < FILE_PAGE_MASK));
    struct writer out = writer_of(builder->entries + page * ENTRY_BYTES, ENTRY_BYTES);
    writer_le64(&out, location.is_zero
                          ? 0
                          : (uint64_t)location.file << FILE_SHIFT | (location.file_page + 1));
    writer_le64(&out, location.is_zero ? 0 : location.checksum);
}

static void fill_sums(const struct page_index_builder *builder, const struct layout *layout,
                      uint8_t *sums)
{
    struct writer out = writer_of(sums, layout->chunk_count * SUM_BYTES);
    for (uint64_t chunk = 0; chunk < layout->chunk_count; chunk++)
        writer_le64(
            &out, XXH3_64bits(builder->entries + chunk * CHUNK_BYTES, chunk_bytes(layout, chunk)));
}

static void fill_head(const struct layout *layout, uint32_t file_count, uint64_t sums_checksum,
                      uint8_t *head)
{
    struct writer out = writer_of(head, HEAD_BYTES);
    writer_bytes(&out, MAGIC, MAGIC_BYTES);
    writer_le32(&out, FORMAT_VERSION);
    writer_le32(&out, file_count);
    writer_le64(&out, layout->page_count);
    writer_le64(&out, layout->chunk_count);
    writer_le64(&out, sums_checksum);
}

struct err *page_index_builder_write(struct page_index_builder *builder, uint32_t file_count,
                                     int fd, const char *name, uint64_t *out_head_checksum)
{
    struct layout layout = layout_of(builder->page_count);
    CLEANUP(cleanup_free) uint8_t *front = calloc(1, layout.entries_offset); /* head and sums */
    if (front == NULL)
        return err_new(ERR_NO_MEMORY, "page index '%s'", name);

    uint8_t *sums = front + HEAD_BYTES;
    fill_sums(builder, &layout, sums);
    fill_head(&layout, file_count, XXH3_64bits(sums, layout.chunk_count * SUM_BYTES), front);
    TRY(file_write_at(fd, name, front, layout.entries_offset, 0));
    TRY(file_write_at(fd, name, builder->entries, builder->page_count * ENTRY_BYTES,
                      layout.entries_offset));
    *out_head_checksum = XXH3_64bits(front, HEAD_BYTES);
    return NULL;
}
