/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compression_policy.h - is it worth compressing pages on this channel now?
 *
 * Compression may never make a move slower. So it is tried only while the sender waits for the
 * link, and kept only while pages leave faster with it than they did without; each failed trial
 * doubles the time until the next. Pure: windows of measurements in, a decision out.
 */
#ifndef MIGRATION_COMPRESSION_POLICY_H
#define MIGRATION_COMPRESSION_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* What a sender did in about COMPRESSION_WINDOW_BYTES of pages that were not zero. */
struct compression_window {
    uint64_t page_bytes; /* before compression */
    uint64_t elapsed_ns;
    uint64_t blocked_ns; /* of which it waited for the link */
};

#define COMPRESSION_WINDOW_BYTES ((uint64_t)8 << 20)

struct compression_policy {
    bool is_on;
    uint64_t raw_rate; /* bytes of pages a second without compression */
    uint32_t windows_in_mode;
    uint32_t windows_between; /* trials; 0 at first */
};

/* A zeroed policy starts without compression. */
void compression_policy_window(struct compression_policy *policy, struct compression_window window);

#endif
