/* SPDX-License-Identifier: Apache-2.0 */
/*
 * planned_request.h - requests made as the engine makes them: planned, moved by the caller, and
 * finished; by the blocking call where nothing can be planned. Thread: any; blocks.
 */
#ifndef STORAGE_TESTING_PLANNED_REQUEST_H
#define STORAGE_TESTING_PLANNED_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct block;

/* *out_was_planned may be NULL. */
ERR_RESULT planned_read(struct block *disk, void *out_data, size_t len, uint64_t offset,
                        bool *out_was_planned);
ERR_RESULT planned_write(struct block *disk, const void *data, size_t len, uint64_t offset,
                         bool *out_was_planned);

#endif
