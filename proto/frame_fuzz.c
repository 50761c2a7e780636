/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_fuzz.c - a migration stream from a hostile peer: heads, bodies, and pages into memory.
 * Tested by: the replay of tests/fuzz/corpus/frame.
 */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "proto/frame.h"
#include "proto/page_decoder.h"

#define PAGES 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void place(struct page_decoder *decoder, const Ferry__MigrationPages *pages,
                  const uint8_t *payload, size_t payload_bytes)
{
    uint8_t *to = NULL;
    size_t len = 0;
    struct err *err = page_decoder_begin(decoder, pages, payload_bytes);

    while (err == NULL && page_decoder_wants(decoder, &to, &len)) {
        memcpy(to, payload, len);
        payload += len;
        err = page_decoder_filled(decoder);
    }
    err_free(err != NULL ? err : page_decoder_end(decoder));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t memory[PAGES * PAGE_BYTES];
    uint64_t touched = 0;
    struct frame_limits limits = {.body_bytes_max = MIGRATION_FRAME_HEAD_MAX,
                                  .payload_bytes_max = MIGRATION_BATCH_BYTES_MAX};
    struct page_decoder *decoder = NULL;
    struct err *err = page_decoder_create(memory, PAGES, &touched, &decoder);

    while (err == NULL) {
        struct frame_head head;
        size_t more = 0;
        Ferry__MigrationFrame *frame = NULL;

        err = frame_scan(data, size, limits, &head, &more);
        if (err != NULL || more > 0 || size - head.head_bytes < head.payload_bytes)
            break;
        err = frame_unpack(data, &head, &frame);
        if (err != NULL)
            break;
        if (frame->body_case == FERRY__MIGRATION_FRAME__BODY_PAGES)
            place(decoder, frame->pages, data + head.head_bytes, head.payload_bytes);
        ferry__migration_frame__free_unpacked(frame, NULL);
        data += head.head_bytes + head.payload_bytes;
        size -= head.head_bytes + head.payload_bytes;
    }
    err_free(err);
    page_decoder_destroy(decoder);
    return 0;
}
