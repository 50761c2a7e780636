/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_clock.h - the kernel's clock of a machine: nanoseconds that the guest's kvmclock shows.
 * Thread: loop.
 */
#ifndef VMM_KVM_KVM_CLOCK_H
#define VMM_KVM_KVM_CLOCK_H

#include <stdint.h>

#include "base/err.h"

struct kvm_vm;

struct kvm_clock_reading {
    uint64_t clock_ns;
    uint64_t realtime_ns; /* 0: the host could not tell */
    uint64_t host_tsc;    /* likewise */
};

ERR_RESULT kvm_clock_get(struct kvm_vm *vm, struct kvm_clock_reading *out_reading);
/* The clock goes on from clock_ns, plus the time since realtime_ns when that is not 0. */
ERR_RESULT kvm_clock_set(struct kvm_vm *vm, uint64_t clock_ns, uint64_t realtime_ns);

#endif
