/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_writer.h - writes a snapshot's memory part and keeps the index of where every page is.
 *
 * New pages are appended; a page that this snapshot holds already is rewritten in its place. Zero
 * pages are index entries only. Thread: belongs to one; may block.
 */
#ifndef SNAPSHOT_MEMORY_WRITER_H
#define SNAPSHOT_MEMORY_WRITER_H

#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

struct memory_writer;
struct page_index;

/* `fd` is the empty memory part; the writer owns it. `parent` is the parent's index, whose entries
 * hold for pages that are not put, and is not kept; NULL: those pages are zero. The part's number
 * in the index is file_number. */
ERR_RESULT memory_writer_create(int fd, uint64_t page_count, uint32_t file_number,
                                struct page_index *parent, struct memory_writer **out_writer);
void memory_writer_destroy(struct memory_writer *writer); /* accepts NULL */

ERR_RESULT memory_writer_put(struct memory_writer *writer, uint64_t page, const uint8_t *content);
void memory_writer_put_zero(struct memory_writer *writer, uint64_t page);

/* Writes out what is buffered and makes the part durable. */
ERR_RESULT memory_writer_finish(struct memory_writer *writer);
/* After finish: writes the index to an empty file, and makes it durable. */
ERR_RESULT memory_writer_write_index(struct memory_writer *writer, int fd, uint64_t *out_checksum);

uint64_t memory_writer_page_count(const struct memory_writer *writer); /* in the part */
uint64_t memory_writer_zero_count(const struct memory_writer *writer); /* puts that were zero */

DEFINE_CLEANUP(memory_writer, struct memory_writer, memory_writer_destroy)

#endif
