/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut_states.h - the states in which a power cut can leave a file whose changes were recorded.
 *
 * What was issued since the last barrier arrives in any subset and order, torn between sectors.
 * Visited are all prefixes of the record, and for each barrier random subsets: a half, one request
 * only, all but one, tables only, data only.
 */
#ifndef STORAGE_TESTING_CUT_STATES_H
#define STORAGE_TESTING_CUT_STATES_H

#include <stddef.h>
#include <stdint.h>

#include "storage/testing/chance.h"
#include "storage/testing/host_file_recorder.h"

struct cut_state {
    const uint8_t *bytes; /* valid during the call */
    size_t len;
    size_t cut;        /* how many records had been issued */
    const char *which; /* of the kinds above */
};

struct cut_judge {
    void (*judge)(struct cut_judge *judge, const struct cut_state *state);
};

struct cut_source {
    const uint8_t *start; /* the image before the first record */
    size_t start_len;
    const struct record_log *log;
    unsigned subsets; /* for each barrier */
    struct chance *chance;
};

void cut_states_visit(const struct cut_source *source, struct cut_judge *judge);

#endif
