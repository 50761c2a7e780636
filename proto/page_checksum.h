/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_checksum.h - the sum over a pages frame: where its pages go, and their bytes.
 *
 * Thread: one at a time.
 */
#ifndef PROTO_PAGE_CHECKSUM_H
#define PROTO_PAGE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "proto/migration.pb-c.h"

/* All runs first, then the payload in pieces of any size. */
static inline void page_checksum_begin(XXH3_state_t *state, const Ferry__MigrationPages *pages)
{
    (void)XXH3_64bits_reset(state);
    for (size_t i = 0; i < pages->n_runs; i++) {
        uint8_t words[24];
        struct writer out = writer_of(words, sizeof(words));

        writer_le64(&out, pages->runs[i]->first);
        writer_le64(&out, pages->runs[i]->count);
        writer_le64(&out, (uint64_t)pages->runs[i]->kind);
        (void)XXH3_64bits_update(state, words, sizeof(words));
    }
}

static inline void page_checksum_add(XXH3_state_t *state, const uint8_t *data, size_t len)
{
    (void)XXH3_64bits_update(state, data, len);
}

static inline uint64_t page_checksum_end(const XXH3_state_t *state)
{
    return XXH3_64bits_digest(state);
}

#endif
