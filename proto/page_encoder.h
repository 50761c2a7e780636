/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_encoder.h - turns pages of a block of 64 into the runs and bytes of one pages frame.
 *
 * Guest memory changes while it is read. So a page's bytes are copied out once, and it is the copy
 * that is compressed, summed and sent: what a checksum covers is what travels. A page that tested
 * as zero is sent as such even if it has changed since: the change is in the dirty log.
 *
 * Thread: one at a time.
 */
#ifndef PROTO_PAGE_ENCODER_H
#define PROTO_PAGE_ENCODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "proto/migration.pb-c.h"

/* A block is what one word of a dirty bitmap stands for. */
#define PAGE_BLOCK_PAGES 64u

struct page_counts {
    uint64_t zero_pages;
    uint64_t raw_pages;
    uint64_t lz4_pages;
    uint64_t payload_bytes;
};

struct page_encoder;

ERR_RESULT page_encoder_create(struct page_encoder **out_encoder);
void page_encoder_destroy(struct page_encoder *encoder); /* accepts NULL */

/* Pages block_first + n for each set bit n; `block` is where page block_first is. The frame's body
 * and the payload are valid until the next call. */
void page_encoder_encode(struct page_encoder *encoder, const uint8_t *block, uint64_t block_first,
                         uint64_t bits, bool with_lz4);
const Ferry__MigrationPages *page_encoder_pages(const struct page_encoder *encoder);
const uint8_t *page_encoder_payload(const struct page_encoder *encoder, size_t *out_bytes);

/* Since create. */
struct page_counts page_encoder_counts(const struct page_encoder *encoder);

#endif
