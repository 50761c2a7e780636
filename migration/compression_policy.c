/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compression_policy.c - see compression_policy.h.
 */
#include "migration/compression_policy.h"

#include "base/checked_math.h"
#include "base/clock.h"

#define BLOCKED_PERCENT_MIN 30u  /* below it, the sender itself is the bottleneck */
#define GAIN_PERCENT_MIN    110u /* of the raw rate; less is within the noise */
#define WINDOWS_BETWEEN_MIN 2u
#define WINDOWS_BETWEEN_MAX 64u
#define WINDOWS_ON_MAX      32u /* then the raw rate is measured again */

static void switch_mode(struct compression_policy *policy, bool is_on)
{
    policy->is_on = is_on;
    policy->windows_in_mode = 0;
}

void compression_policy_window(struct compression_policy *policy, struct compression_window window)
{
    uint64_t rate = window.page_bytes * 1000 / MAX(window.elapsed_ns / NS_PER_MS, (uint64_t)1);
    bool is_blocked = window.blocked_ns * 100 >= window.elapsed_ns * BLOCKED_PERCENT_MIN;

    policy->windows_in_mode++;
    if (!policy->is_on) {
        policy->raw_rate = policy->raw_rate == 0 ? rate : (policy->raw_rate + rate) / 2;
        if (is_blocked && policy->windows_in_mode > policy->windows_between)
            switch_mode(policy, true);
        return;
    }
    if (rate * 100 < policy->raw_rate * GAIN_PERCENT_MIN) {
        policy->windows_between =
            MIN(MAX(policy->windows_between * 2, WINDOWS_BETWEEN_MIN), WINDOWS_BETWEEN_MAX);
        switch_mode(policy, false);
    } else if (policy->windows_in_mode >= WINDOWS_ON_MAX) {
        policy->raw_rate = 0;
        policy->windows_between = 0;
        switch_mode(policy, false);
    }
}
