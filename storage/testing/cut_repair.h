/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cut_repair.h - the image that a power cut left, as repair makes it.
 */
#ifndef STORAGE_TESTING_CUT_REPAIR_H
#define STORAGE_TESTING_CUT_REPAIR_H

#include <stddef.h>
#include <stdint.h>

#include "storage/testing/cut_states.h"

/* A copy of the state after qcow_repair, which must leave neither errors nor leaks, as it says and
 * as the independent checker finds; free() it. */
uint8_t *cut_repair(const struct cut_state *state, size_t *out_len);

#endif
