/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lent_memory.h - a borrower's view of a machine's RAM and of what changed in it.
 *
 * RAM pages are numbered through the memory file (see control.proto, MemoryRegion).
 * Thread: mapping and bitmap may be used by several threads at once; calls by one at a time.
 */
#ifndef CONTROL_LENT_MEMORY_H
#define CONTROL_LENT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/control.pb-c.h"

struct control_client;
struct lent_memory;

ERR_RESULT lent_memory_borrow(struct control_client *client, Ferry__LendPurpose purpose,
                              const char *parent_snapshot, struct lent_memory **out_memory);
void lent_memory_return(struct lent_memory *memory); /* unmaps only; accepts NULL */

uint64_t lent_memory_page_count(const struct lent_memory *memory);
uint8_t *lent_memory_base(const struct lent_memory *memory); /* read-only unless LEND_INCOMING */
int lent_memory_fd(const struct lent_memory *memory);
bool lent_memory_is_incremental(const struct lent_memory *memory);

/* The shared dirty bitmap; NULL for LEND_INCOMING. Take words with bitmap_atomic_take_word. */
uint64_t *lent_memory_dirty(const struct lent_memory *memory);

/* The next run of pages at or after `from` that the memory file holds (the rest are zero and must
 * not be touched: reading a hole allocates it). *out_count 0: none. */
ERR_RESULT lent_memory_next_data(const struct lent_memory *memory, uint64_t from,
                                 uint64_t *out_first, uint64_t *out_count);

#endif
