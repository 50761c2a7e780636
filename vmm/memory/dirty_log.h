/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty_log.h - which pages vCPUs wrote to, as the tracker sees it: KVM's log, or a test's.
 *
 * A log reports a page until it is cleared, and from a clear on again after the next write.
 * Pages are numbered within a region. Thread: loop only.
 */
#ifndef VMM_MEMORY_DIRTY_LOG_H
#define VMM_MEMORY_DIRTY_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct dirty_log;

struct dirty_log_ops {
    /* Just enabled, a log may report every page. */
    struct err *(*enable)(struct dirty_log *log);
    struct err *(*disable)(struct dirty_log *log);
    struct err *(*get)(struct dirty_log *log, size_t region, uint64_t *out_words);
    /* Clears those of the `count` pages from `first` whose bits are set in words (whose first bit
     * is page `first`). Both are multiples of 64, but for a region's end. */
    struct err *(*clear)(struct dirty_log *log, size_t region, uint64_t first, uint64_t count,
                         const uint64_t *words);
};

struct dirty_log {
    const struct dirty_log_ops *ops;
};

#endif
