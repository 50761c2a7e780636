/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_load.h - gives a disk many requests of one kind, and takes the time.
 *
 * Thread: loop only; the engine has threads of its own.
 */
#ifndef TOOLS_VM_DISK_BENCH_LOAD_H
#define TOOLS_VM_DISK_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/block.h"
#include "storage/io_engine.h"

struct bench_load {
    bool is_writing;
    bool is_random;
    uint64_t warm_up; /* so many requests before the clock starts */
    uint64_t count;
    unsigned depth;       /* requests in flight at once */
    uint64_t bytes;       /* of a request */
    uint64_t step;        /* from the offset of one request to that of the next */
    uint64_t first;       /* offset of the first */
    uint64_t flush_every; /* so many writes; all have ended before it. 0: never */
    uint8_t pattern;
    enum io_engine_kind engine;
};

struct bench_result {
    uint64_t ns;
    uint64_t flushes;
    const char *engine;
};

/* The first error ends it. */
ERR_RESULT bench_load_run(struct block *block, const struct bench_load *load,
                          struct bench_result *out_result);

#endif
