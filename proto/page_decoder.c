/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_decoder.c - see page_decoder.h.
 */
#include "proto/page_decoder.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "proto/page_checksum.h"
#include "proto/page_lz4.h"

struct page_decoder {
    uint8_t *memory;
    uint64_t page_count;
    uint64_t *touched; /* shared: atomic */
    XXH3_state_t *checksum;
    uint8_t *block; /* owned; one LZ4 block */
    const Ferry__MigrationPages *pages;
    size_t run_index;
};

struct err *page_decoder_create(uint8_t *memory, uint64_t page_count, uint64_t *touched,
                                struct page_decoder **out_decoder)
{
    struct page_decoder *decoder = calloc(1, sizeof(*decoder));
    if (decoder == NULL)
        return err_new(ERR_NO_MEMORY, "page decoder");

    decoder->memory = memory;
    decoder->page_count = page_count;
    decoder->touched = touched;
    decoder->checksum = XXH3_createState();
    decoder->block = malloc((size_t)PAGE_LZ4_PAGES_MAX * PAGE_BYTES);
    if (decoder->checksum == NULL || decoder->block == NULL) {
        page_decoder_destroy(decoder);
        return err_new(ERR_NO_MEMORY, "page decoder");
    }
    *out_decoder = decoder;
    return NULL;
}

void page_decoder_destroy(struct page_decoder *decoder)
{
    if (decoder == NULL)
        return;
    (void)XXH3_freeState(decoder->checksum);
    free(decoder->block);
    free(decoder);
}

static struct err *check_run(const struct page_decoder *decoder, const Ferry__PageRun *run,
                             size_t *out_bytes)
{
    if (run->count == 0 || !range_is_within(run->first, run->count, decoder->page_count))
        return err_new(ERR_INVALID, "pages %ju and %u more; the machine has %ju",
                       (uintmax_t)run->first, run->count, (uintmax_t)decoder->page_count);

    switch (run->kind) {
    case FERRY__PAGE_KIND__PAGE_ZERO: *out_bytes = 0; return NULL;
    case FERRY__PAGE_KIND__PAGE_RAW:
        if (run->count > MIGRATION_BATCH_PAGES_MAX)
            return err_new(ERR_INVALID, "%u raw pages in a run", run->count);
        *out_bytes = (size_t)run->count * PAGE_BYTES;
        return NULL;
    case FERRY__PAGE_KIND__PAGE_LZ4:
        if (run->count > PAGE_LZ4_PAGES_MAX || run->bytes == 0 ||
            run->bytes > run->count * PAGE_BYTES)
            return err_new(ERR_INVALID, "%u pages compressed to %u bytes", run->count, run->bytes);
        *out_bytes = run->bytes;
        return NULL;
    default:
        return err_new(ERR_INCOMPATIBLE, "pages of kind %d, which this version does not know",
                       (int)run->kind);
    }
}

/* Zero runs take effect at once; the decoder then stands at a run that has bytes, or at the end. */
static void apply_zero_runs(struct page_decoder *decoder)
{
    for (; decoder->run_index < decoder->pages->n_runs; decoder->run_index++) {
        const Ferry__PageRun *run = decoder->pages->runs[decoder->run_index];

        if (run->kind != FERRY__PAGE_KIND__PAGE_ZERO)
            return;
        for (uint64_t page = run->first; page < run->first + run->count; page++)
            if (bitmap_test(decoder->touched, page))
                memset(decoder->memory + page * PAGE_BYTES, 0, PAGE_BYTES);
    }
}

struct err *page_decoder_begin(struct page_decoder *decoder, const Ferry__MigrationPages *pages,
                               size_t payload_bytes)
{
    size_t total = 0;

    for (size_t i = 0; i < pages->n_runs; i++) {
        size_t bytes = 0;
        TRY(check_run(decoder, pages->runs[i], &bytes));
        total += bytes;
        if (total > payload_bytes)
            break;
    }
    if (total != payload_bytes)
        return err_new(ERR_INVALID, "pages frame: its runs do not add up to its %zu bytes",
                       payload_bytes);

    decoder->pages = pages;
    decoder->run_index = 0;
    page_checksum_begin(decoder->checksum, pages);
    apply_zero_runs(decoder);
    return NULL;
}

/* First touch of a page by a fault costs several times what populating a range does. */
static void touch(struct page_decoder *decoder, const Ferry__PageRun *run)
{
    uint8_t *start = decoder->memory + run->first * PAGE_BYTES;

    /* Advice: where the kernel has no such call, the pages are faulted in as they are written. */
    if (run->count > 1 && !bitmap_test(decoder->touched, run->first))
        (void)madvise(start, (size_t)run->count * PAGE_BYTES, MADV_POPULATE_WRITE);
    for (uint64_t page = run->first; page < run->first + run->count; page++)
        bitmap_atomic_set(decoder->touched, page);
}

bool page_decoder_wants(struct page_decoder *decoder, uint8_t **out_to, size_t *out_len)
{
    if (decoder->run_index == decoder->pages->n_runs)
        return false;

    const Ferry__PageRun *run = decoder->pages->runs[decoder->run_index];
    touch(decoder, run);
    if (run->kind == FERRY__PAGE_KIND__PAGE_RAW) {
        *out_to = decoder->memory + run->first * PAGE_BYTES;
        *out_len = (size_t)run->count * PAGE_BYTES;
    } else {
        *out_to = decoder->block;
        *out_len = run->bytes;
    }
    return true;
}

struct err *page_decoder_filled(struct page_decoder *decoder)
{
    const Ferry__PageRun *run = decoder->pages->runs[decoder->run_index];
    uint8_t *memory = decoder->memory + run->first * PAGE_BYTES;

    if (run->kind == FERRY__PAGE_KIND__PAGE_RAW) {
        page_checksum_add(decoder->checksum, memory, (size_t)run->count * PAGE_BYTES);
    } else {
        page_checksum_add(decoder->checksum, decoder->block, run->bytes);
        if (!page_lz4_decompress(decoder->block, run->bytes, memory, run->count))
            return err_new(ERR_INVALID, "page %ju: its LZ4 block is damaged",
                           (uintmax_t)run->first);
    }
    decoder->run_index++;
    apply_zero_runs(decoder);
    return NULL;
}

struct err *page_decoder_end(struct page_decoder *decoder)
{
    if (page_checksum_end(decoder->checksum) != decoder->pages->checksum)
        return err_new(ERR_INVALID, "pages arrived damaged: the checksum of a batch differs");
    return NULL;
}
