/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_capability.c - the table of required capabilities.
 */
#include "vmm/kvm/kvm_capability.h"

#include <linux/kvm.h>

#include "base/checked_math.h"

struct capability_row {
    int capability;
    int bits; /* that must be set in the answer; 0: any positive answer will do */
    const char *name;
    const char *needed_for;
    const char *remedy;
};

#define CLOCK_BITS (KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)
#define LOG_BITS   (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET)

/* clang-format off */
static const struct capability_row rows[] = {
    {KVM_CAP_USER_MEMORY,      0, "KVM_CAP_USER_MEMORY",      "guest memory",              "use Linux 5.16 or later"},
    {KVM_CAP_IRQCHIP,          0, "KVM_CAP_IRQCHIP",          "interrupt chips",           "use an x86-64 host"},
    {KVM_CAP_PIT2,             0, "KVM_CAP_PIT2",             "the timer chip",            "use an x86-64 host"},
    {KVM_CAP_PIT_STATE2,       0, "KVM_CAP_PIT_STATE2",       "saving the timer chip",     "use Linux 5.16 or later"},
    {KVM_CAP_IRQFD,            0, "KVM_CAP_IRQFD",            "device interrupts",         "use Linux 5.16 or later"},
    {KVM_CAP_IOEVENTFD,        0, "KVM_CAP_IOEVENTFD",        "device notifications",      "use Linux 5.16 or later"},
    {KVM_CAP_IRQ_ROUTING,      0, "KVM_CAP_IRQ_ROUTING",      "message-signalled interrupts", "use Linux 5.16 or later"},
    {KVM_CAP_EXT_CPUID,        0, "KVM_CAP_EXT_CPUID",        "CPU models",                "use an x86-64 host"},
    {KVM_CAP_IMMEDIATE_EXIT,   0, "KVM_CAP_IMMEDIATE_EXIT",   "pausing",                   "use Linux 4.13 or later"},
    {KVM_CAP_VCPU_EVENTS,      0, "KVM_CAP_VCPU_EVENTS",      "saving vCPUs",              "use Linux 5.16 or later"},
    {KVM_CAP_DEBUGREGS,        0, "KVM_CAP_DEBUGREGS",        "saving vCPUs",              "use Linux 5.16 or later"},
    {KVM_CAP_XSAVE,            0, "KVM_CAP_XSAVE",            "saving vCPUs",              "use Linux 5.16 or later"},
    {KVM_CAP_XCRS,             0, "KVM_CAP_XCRS",             "saving vCPUs",              "use Linux 5.16 or later"},
    {KVM_CAP_MP_STATE,         0, "KVM_CAP_MP_STATE",         "saving vCPUs",              "use Linux 5.16 or later"},
    {KVM_CAP_SREGS2,           0, "KVM_CAP_SREGS2",           "saving vCPUs",              "use Linux 5.14 or later"},
    {KVM_CAP_ADJUST_CLOCK, CLOCK_BITS, "KVM_CAP_ADJUST_CLOCK", "guest time after a restore or a move", "use Linux 5.16 or later"},
    {KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, LOG_BITS, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", "snapshots and moves of a running machine", "use Linux 5.7 or later"},
};
/* clang-format on */

struct err *kvm_capabilities_check(kvm_capability_query query, void *context)
{
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        const struct capability_row *row = &rows[i];
        int answer = query(context, row->capability);
        if (answer <= 0 || (answer & row->bits) != row->bits)
            return err_new(ERR_INCOMPATIBLE, "this host's KVM lacks %s, needed for %s; %s",
                           row->name, row->needed_for, row->remedy);
    }
    return NULL;
}
