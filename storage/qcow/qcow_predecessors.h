/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_predecessors.h - which files an image has taken the place of, with the same content.
 *
 * A layer that is merged with those below it keeps its name, what it shows and its modification
 * time, but not its size. So that whoever knows it by size and time recognises it, the sizes that
 * it had stand in a header extension of its own, which other programs keep and ignore:
 * type 0x46724c79, then the sizes as 64 bit numbers, the newest last.
 * Thread: any.
 */
#ifndef STORAGE_QCOW_QCOW_PREDECESSORS_H
#define STORAGE_QCOW_QCOW_PREDECESSORS_H

#include <stdint.h>

#include "base/err.h"

#define QCOW_PREDECESSORS_MAX 32u

struct qcow_predecessors {
    uint64_t sizes[QCOW_PREDECESSORS_MAX];
    unsigned count;
};

/* Of an image; none when it has no such extension. ERR_INVALID: it is no sound qcow2 header. */
ERR_RESULT qcow_predecessors_read(int fd, const char *path,
                                  struct qcow_predecessors *out_predecessors);

/* Into an image that has none, and that nobody has open. Not durable when it returns. */
ERR_RESULT qcow_predecessors_write(int fd, const char *path,
                                   const struct qcow_predecessors *predecessors);

#endif
