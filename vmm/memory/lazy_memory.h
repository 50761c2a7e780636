/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lazy_memory.h - fills a restored machine's memory from a snapshot while the guest runs already:
 * what it touches at once, the rest ahead of it.
 *
 * Thread: loop only, but for on_end.
 */
#ifndef VMM_MEMORY_LAZY_MEMORY_H
#define VMM_MEMORY_LAZY_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct guest_memory;
struct lazy_memory;

/* Those of the control call memory_source: the index, then the page files. */
struct lazy_files {
    const int *fds;
    size_t count;
};

/* `memory` must not have been touched since it was created: start before any state is loaded. The
 * files are duplicated. on_end is called once, on a loader's thread, when everything is loaded
 * (NULL) or something is damaged (the error is the callee's); touching what could not be loaded
 * fails. Where the host does not allow loading on demand, everything is loaded before this returns,
 * and on_end called. */
ERR_RESULT lazy_memory_start(struct guest_memory *memory, uint64_t index_checksum,
                             struct lazy_files files,
                             void (*on_end)(void *context, struct err *err), void *context,
                             struct lazy_memory **out_lazy);
/* After on_end, or to give up: then what is not loaded is lost. Accepts NULL. */
void lazy_memory_destroy(struct lazy_memory *lazy);

uint64_t lazy_memory_left_bytes(const struct lazy_memory *lazy); /* 0: all loaded */

#endif
