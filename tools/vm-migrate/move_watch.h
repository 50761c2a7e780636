/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_watch.h - shows a move: a line that redraws itself on a terminal, plain lines elsewhere, or
 * JSON events; and the report at its end.
 *
 * Thread: tick: loop; the observer's calls come from the thread that moves. stdio locks.
 */
#ifndef TOOLS_VM_MIGRATE_MOVE_WATCH_H
#define TOOLS_VM_MIGRATE_MOVE_WATCH_H

#include <stdbool.h>

#include "migration/source.h"

struct move_watch {
    struct move_observer base;
    const char *name;
    bool json;
    bool is_terminal;
    uint64_t started_ns;
    const char *phase; /* atomic: a string of source.c */
    uint32_t rounds;   /* atomic */
};

void move_watch_init(struct move_watch *watch, const char *name, bool json);
/* Draws the progress line, if there is one. */
void move_watch_tick(struct move_watch *watch, struct page_counts counts);
void move_watch_report(struct move_watch *watch, const char *target,
                       const struct move_report *report);

#endif
