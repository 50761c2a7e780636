/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msr_table.c - see msr_table.h.
 */
#include "vmm/cpu/msr_table.h"

#include "base/checked_math.h"

struct msr_range {
    uint32_t first;
    uint32_t last;
};

/* clang-format off */
static const struct msr_range skipped[] = {
    {0x10, 0x10},             /* TSC: in the clock's section */
    {0x1b, 0x1b},             /* APIC base: in the system registers */
    {0x49, 0x49},             /* PRED_CMD: a command */
    {0x10b, 0x10b},           /* FLUSH_CMD: a command */
    {0xc1, 0xc8},             /* performance counters are not offered */
    {0x186, 0x18d},
    {0x309, 0x30c},
    {0x345, 0x345},
    {0x38d, 0x390},
    {0x3f1, 0x3f2},
    {0x600, 0x600},
    {0x14cf, 0x14cf},
    {0x4c1, 0x4c8},
    {0xc0010000, 0xc0010007},
    {0xc0010200, 0xc001020b},
    {0xc0000300, 0xc0000302},
    {0x480, 0x491},           /* VMX is not offered */
    {0x560, 0x587},           /* processor trace is not offered */
    {0xda0, 0xda0},           /* no supervisor state component is offered */
    {0xc0010114, 0xc0010117}, /* SVM is not offered */
    {0xc001011f, 0xc001011f},
    {0x40000000, 0x400001ff}, /* Hyper-V and Xen interfaces are not offered */
    {0xc0000080, 0xc0000080}, /* EFER and segment bases: in the system registers */
    {0xc0000100, 0xc0000101},
};

static const struct msr_range may_be_refused[] = {
    {0x3a, 0x3a},             /* FEATURE_CONTROL */
    {0x8b, 0x8b},             /* microcode revision */
    {0xce, 0xce},             /* PLATFORM_INFO */
    {0x10a, 0x10a},           /* ARCH_CAPABILITIES */
    {0x140, 0x140},           /* MISC_FEATURES_ENABLES */
    {0x179, 0x179},           /* MCG_CAP */
    {0xc001001f, 0xc001001f}, /* NB_CFG */
    {0xc0011020, 0xc001102f}, /* AMD chicken bits */
};

/* Settable and needed, but not in every kernel's list. */
static const struct msr_range unlisted[] = {
    {0x48, 0x48},             /* SPEC_CTRL */
    {0x200, 0x20f},           /* MTRRs */
    {0x250, 0x250},
    {0x258, 0x259},
    {0x268, 0x26f},
    {0x277, 0x277},           /* PAT */
    {0x2ff, 0x2ff},
    {0xc0000102, 0xc0000103}, /* KERNEL_GS_BASE, TSC_AUX */
};
/* clang-format on */

static bool is_in(const struct msr_range *ranges, size_t count, uint32_t index)
{
    for (size_t i = 0; i < count; i++) {
        if (index >= ranges[i].first && index <= ranges[i].last)
            return true;
    }
    return false;
}

bool msr_is_skipped(uint32_t index)
{
    return is_in(skipped, ARRAY_COUNT(skipped), index);
}

bool msr_may_be_refused(uint32_t index)
{
    return is_in(may_be_refused, ARRAY_COUNT(may_be_refused), index);
}

static size_t add_once(uint32_t *indices, size_t count, uint32_t index)
{
    for (size_t i = 0; i < count; i++) {
        if (indices[i] == index)
            return count;
    }
    if (count < MSR_COUNT_MAX)
        indices[count++] = index;
    return count;
}

size_t msr_table_choose(const uint32_t *listed, size_t listed_count,
                        uint32_t out_indices[MSR_COUNT_MAX])
{
    bool has_deadline = false;
    size_t count = 0;

    for (size_t i = 0; i < listed_count; i++) {
        has_deadline = has_deadline || listed[i] == MSR_TSC_DEADLINE;
        if (!msr_is_skipped(listed[i]) && listed[i] != MSR_TSC_DEADLINE)
            count = add_once(out_indices, count, listed[i]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(unlisted); i++) {
        for (uint32_t index = unlisted[i].first; index <= unlisted[i].last; index++)
            count = add_once(out_indices, count, index);
    }
    if (has_deadline)
        count = add_once(out_indices, count, MSR_TSC_DEADLINE);
    return count;
}
