/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_stage.h - copies of pages in RAM, on their way from a machine to a store.
 *
 * A page has one place: putting it again replaces its content. Thread: belongs to one.
 */
#ifndef SNAPSHOT_PAGE_STAGE_H
#define SNAPSHOT_PAGE_STAGE_H

#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

struct page_stage;

/* Pages are numbered below page_count; capacity is how many fit. Memory is used as it fills. */
ERR_RESULT page_stage_create(uint64_t page_count, uint64_t capacity, struct page_stage **out_stage);
void page_stage_destroy(struct page_stage *stage); /* accepts NULL */

uint64_t page_stage_count(const struct page_stage *stage);
uint64_t page_stage_capacity(const struct page_stage *stage);

/* Has the host back the room for `pages` more, so that putting them takes no page faults. */
void page_stage_prepare(struct page_stage *stage, uint64_t pages);
/* ERR_NO_MEMORY when it is full. */
ERR_RESULT page_stage_put(struct page_stage *stage, uint64_t page, const uint8_t *content);
/* The content in place `at`, below the count; valid until the next put. */
const uint8_t *page_stage_get(const struct page_stage *stage, uint64_t at, uint64_t *out_page);
void page_stage_clear(struct page_stage *stage);

DEFINE_CLEANUP(page_stage, struct page_stage, page_stage_destroy)

#endif
