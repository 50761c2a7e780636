/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_decoder.h - puts the pages of pages frames where they belong.
 *
 * The caller asks where the next bytes of the payload go, reads them there, straight into guest
 * memory for raw pages, and reports them:
 *
 *     page_decoder_begin(decoder, pages, payload_bytes)
 *     while (page_decoder_wants(decoder, &to, &len))
 *         read len bytes to `to`; page_decoder_filled(decoder)
 *     page_decoder_end(decoder)
 *
 * Several decoders may fill one memory, each from its own thread; `touched` has a bit a page and
 * is shared: a zero page that was never written costs nothing.
 */
#ifndef PROTO_PAGE_DECODER_H
#define PROTO_PAGE_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/migration.pb-c.h"

struct page_decoder;

ERR_RESULT page_decoder_create(uint8_t *memory, uint64_t page_count, uint64_t *touched,
                               struct page_decoder **out_decoder);
void page_decoder_destroy(struct page_decoder *decoder); /* accepts NULL */

/* Checks every run against the memory and the payload before a byte is written. `pages` must stay
 * until the end. */
ERR_RESULT page_decoder_begin(struct page_decoder *decoder, const Ferry__MigrationPages *pages,
                              size_t payload_bytes);
/* False when all bytes have been placed. */
bool page_decoder_wants(struct page_decoder *decoder, uint8_t **out_to, size_t *out_len);
ERR_RESULT page_decoder_filled(struct page_decoder *decoder);
/* ERR_INVALID when the checksum differs: then the memory is not to be used. */
ERR_RESULT page_decoder_end(struct page_decoder *decoder);

#endif
