/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_encoder.c - see page_encoder.h. Tested by: page_decoder_test.c.
 */
#include "proto/page_encoder.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "proto/page_checksum.h"
#include "proto/page_lz4.h"
#include "proto/page_zero.h"

struct page_encoder {
    Ferry__MigrationPages pages;
    Ferry__PageRun runs[PAGE_BLOCK_PAGES];
    Ferry__PageRun *run_pointers[PAGE_BLOCK_PAGES];
    XXH3_state_t *checksum;
    uint8_t *copies;  /* owned; pages that are not zero, one after the other */
    uint8_t *packed;  /* owned; the payload when some of it is compressed */
    uint8_t *payload; /* copies or packed */
    size_t payload_bytes;
    struct page_counts counts;
};

struct err *page_encoder_create(struct page_encoder **out_encoder)
{
    struct page_encoder *encoder = calloc(1, sizeof(*encoder));
    if (encoder == NULL)
        return err_new(ERR_NO_MEMORY, "page encoder");

    encoder->checksum = XXH3_createState();
    encoder->copies = aligned_alloc(PAGE_BYTES, (size_t)PAGE_BLOCK_PAGES * PAGE_BYTES);
    encoder->packed = aligned_alloc(PAGE_BYTES, (size_t)PAGE_BLOCK_PAGES * PAGE_BYTES);
    if (encoder->checksum == NULL || encoder->copies == NULL || encoder->packed == NULL) {
        page_encoder_destroy(encoder);
        return err_new(ERR_NO_MEMORY, "page encoder");
    }
    ferry__migration_pages__init(&encoder->pages);
    encoder->pages.runs = encoder->run_pointers;
    for (size_t i = 0; i < PAGE_BLOCK_PAGES; i++)
        encoder->run_pointers[i] = &encoder->runs[i];
    *out_encoder = encoder;
    return NULL;
}

void page_encoder_destroy(struct page_encoder *encoder)
{
    if (encoder == NULL)
        return;
    (void)XXH3_freeState(encoder->checksum);
    free(encoder->copies);
    free(encoder->packed);
    free(encoder);
}

static void add_page(struct page_encoder *encoder, uint64_t page, Ferry__PageKind kind)
{
    Ferry__MigrationPages *pages = &encoder->pages;

    if (pages->n_runs > 0) {
        Ferry__PageRun *last = &encoder->runs[pages->n_runs - 1];
        if (last->kind == kind && last->first + last->count == page) {
            last->count++;
            return;
        }
    }
    Ferry__PageRun *run = &encoder->runs[pages->n_runs++];
    ferry__page_run__init(run);
    run->first = page;
    run->count = 1;
    run->kind = kind;
}

/* Fills runs with zero and raw ones, and the copies. */
static void gather(struct page_encoder *encoder, const uint8_t *block, uint64_t block_first,
                   uint64_t bits)
{
    uint8_t *to = encoder->copies;

    encoder->pages.n_runs = 0;
    for (; bits != 0; bits &= bits - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(bits);
        const uint8_t *page = block + (size_t)bit * PAGE_BYTES;

        if (page_is_zero(page)) {
            add_page(encoder, block_first + bit, FERRY__PAGE_KIND__PAGE_ZERO);
            encoder->counts.zero_pages++;
        } else {
            memcpy(to, page, PAGE_BYTES);
            to += PAGE_BYTES;
            add_page(encoder, block_first + bit, FERRY__PAGE_KIND__PAGE_RAW);
        }
    }
    encoder->payload = encoder->copies;
    encoder->payload_bytes = (size_t)(to - encoder->copies);
}

/* Appends one piece of a raw run to the packed payload, compressed when that helps. */
static void pack_piece(struct page_encoder *encoder, const uint8_t *from, Ferry__PageRun *piece)
{
    uint8_t *to = encoder->packed + encoder->payload_bytes;
    size_t bytes = (size_t)piece->count * PAGE_BYTES;

    if (page_lz4_compress(from, piece->count, to, &bytes)) {
        piece->kind = FERRY__PAGE_KIND__PAGE_LZ4;
        piece->bytes = (uint32_t)bytes;
    } else {
        memcpy(to, from, bytes);
    }
    encoder->payload_bytes += bytes;
}

/* Splits raw runs into pieces of one LZ4 block each. */
static void compress(struct page_encoder *encoder)
{
    Ferry__PageRun gathered[PAGE_BLOCK_PAGES];
    size_t gathered_count = encoder->pages.n_runs;
    const uint8_t *from = encoder->copies;

    memcpy(gathered, encoder->runs, gathered_count * sizeof(gathered[0]));
    encoder->pages.n_runs = 0;
    encoder->payload = encoder->packed;
    encoder->payload_bytes = 0;
    for (size_t i = 0; i < gathered_count; i++) {
        Ferry__PageRun rest = gathered[i];

        if (rest.kind == FERRY__PAGE_KIND__PAGE_ZERO) {
            encoder->runs[encoder->pages.n_runs++] = rest;
            continue;
        }
        while (rest.count > 0) {
            Ferry__PageRun *piece = &encoder->runs[encoder->pages.n_runs++];

            *piece = rest;
            piece->count = MIN(rest.count, PAGE_LZ4_PAGES_MAX);
            pack_piece(encoder, from, piece);
            from += (size_t)piece->count * PAGE_BYTES;
            rest.first += piece->count;
            rest.count -= piece->count;
        }
    }
}

static void count_pages(struct page_encoder *encoder)
{
    for (size_t i = 0; i < encoder->pages.n_runs; i++) {
        const Ferry__PageRun *run = &encoder->runs[i];

        if (run->kind == FERRY__PAGE_KIND__PAGE_RAW)
            encoder->counts.raw_pages += run->count;
        else if (run->kind == FERRY__PAGE_KIND__PAGE_LZ4)
            encoder->counts.lz4_pages += run->count;
    }
    encoder->counts.payload_bytes += encoder->payload_bytes;
}

void page_encoder_encode(struct page_encoder *encoder, const uint8_t *block, uint64_t block_first,
                         uint64_t bits, bool with_lz4)
{
    gather(encoder, block, block_first, bits);
    if (with_lz4 && encoder->payload_bytes > 0)
        compress(encoder);
    count_pages(encoder);
    page_checksum_begin(encoder->checksum, &encoder->pages);
    page_checksum_add(encoder->checksum, encoder->payload, encoder->payload_bytes);
    encoder->pages.checksum = page_checksum_end(encoder->checksum);
}

const Ferry__MigrationPages *page_encoder_pages(const struct page_encoder *encoder)
{
    return &encoder->pages;
}

const uint8_t *page_encoder_payload(const struct page_encoder *encoder, size_t *out_bytes)
{
    *out_bytes = encoder->payload_bytes;
    return encoder->payload;
}

struct page_counts page_encoder_counts(const struct page_encoder *encoder)
{
    return encoder->counts;
}
