/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_progress.h - how far a long piece of work is, and whether Ctrl-C wants it to end.
 *
 * Thread: loop only.
 */
#ifndef TOOLS_VM_DISK_DISK_PROGRESS_H
#define TOOLS_VM_DISK_DISK_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct disk_progress {
    const char *what; /* "convert" */
    uint64_t total_bytes;
    uint64_t started_ns;
    uint64_t drawn_ns;
    bool is_drawn; /* on a terminal */
};

/* From here on Ctrl-C and a polite kill are noticed instead of ending the process. A bar is drawn
 * on stderr, if that is a terminal and `is_quiet` does not forbid it. */
void disk_progress_begin(struct disk_progress *progress, const char *what, uint64_t total_bytes,
                         bool is_quiet);

/* Draws now and then. ERR_CANCELLED once somebody wants it to end. */
ERR_RESULT disk_progress_at(struct disk_progress *progress, uint64_t done_bytes);

/* Removes the bar. Gives how long it all took. */
uint64_t disk_progress_end(struct disk_progress *progress);

#endif
