/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_index.h - where every RAM page of a snapshot is found: the flat index that makes a restore
 * independent of how many snapshots the content is spread over.
 *
 * File layout, little endian, made to be mapped:
 *
 *     head, 4096 bytes:  magic "FERRYIDX", u32 version 1, u32 file_count, u64 page_count,
 *                        u64 chunk_count, u64 sums_checksum (XXH3-64 of the sums table), zeros
 *     sums table:        chunk_count x u64, XXH3-64 of each chunk of entries; padded to 4096
 *     entries:           page_count x 16 bytes { u64 location, u64 checksum }, in chunks of 4096
 *                        entries (64 KiB, 16 MiB of RAM)
 *
 * location: 0 is a zero page; else bits 48..63 hold the file's number, and bits 0..47 the page's
 * place in that file plus one, in pages. checksum: XXH3-64 of the page. Chunks are verified when
 * they are first used, so that opening costs nothing that grows with RAM but the sums table.
 *
 * Thread: a reader may be used by one thread.
 */
#ifndef PROTO_PAGE_INDEX_H
#define PROTO_PAGE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define PAGE_INDEX_CHUNK_ENTRIES 4096u

struct page_location {
    bool is_zero;
    uint32_t file;      /* number, below file_count */
    uint64_t file_page; /* in that file, in pages */
    uint64_t checksum;  /* XXH3-64 of the page's bytes */
};

/* Reading. The fd is mapped, not kept. head_checksum is XXH3-64 of the head; it comes from the
 * manifest. Every error names `name`. */
struct page_index;
ERR_RESULT page_index_open(int fd, const char *name, uint64_t head_checksum,
                           struct page_index **out_index);
void page_index_close(struct page_index *index); /* accepts NULL */
uint64_t page_index_page_count(const struct page_index *index);
uint32_t page_index_file_count(const struct page_index *index);
/* Verifies the chunk on its first use; ERR_INVALID when it is damaged or names a missing file. */
ERR_RESULT page_index_find(struct page_index *index, uint64_t page,
                           struct page_location *out_location);
/* The same, and how many pages from there on, at most count_max, follow one another in the same
 * file or are all zero; each has a checksum of its own. */
ERR_RESULT page_index_find_run(struct page_index *index, uint64_t page, uint64_t count_max,
                               struct page_location *out_location, uint64_t *out_count);

/* Writing: all entries in memory (16 bytes a page), then one file. */
struct page_index_builder;
ERR_RESULT page_index_builder_create(uint64_t page_count, struct page_index_builder **out_builder);
void page_index_builder_destroy(struct page_index_builder *builder); /* accepts NULL */
/* Starts from another index: its entries and file numbers. Verifies all of it. */
ERR_RESULT page_index_builder_copy(struct page_index_builder *builder, struct page_index *from);
/* What is set for the page; zero pages at first. */
struct page_location page_index_builder_get(const struct page_index_builder *builder,
                                            uint64_t page);
void page_index_builder_set(struct page_index_builder *builder, uint64_t page,
                            struct page_location location);
/* Writes at offset 0 of an empty file, does not sync it. */
ERR_RESULT page_index_builder_write(struct page_index_builder *builder, uint32_t file_count, int fd,
                                    const char *name, uint64_t *out_head_checksum);

#endif
