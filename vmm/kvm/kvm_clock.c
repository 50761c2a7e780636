/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_clock.c - see kvm_clock.h.
 * Tested by: vmm/cpu/clock_state_test.c for what is set, tests/kernel for what KVM makes of it.
 */
#include "vmm/kvm/kvm_clock.h"

#include "vmm/kvm/kvm_ioctl_internal.h"
#include "vmm/kvm/kvm_vm.h"

struct err *kvm_clock_get(struct kvm_vm *vm, struct kvm_clock_reading *out_reading)
{
    struct kvm_clock_data data = {0};
    TRY(kvm_ioctl(kvm_vm_fd(vm), KVM_GET_CLOCK, &data, "read the clock"));

    *out_reading = (struct kvm_clock_reading){
        .clock_ns = data.clock,
        .realtime_ns = (data.flags & KVM_CLOCK_REALTIME) != 0 ? data.realtime : 0,
        .host_tsc = (data.flags & KVM_CLOCK_HOST_TSC) != 0 ? data.host_tsc : 0,
    };
    return NULL;
}

struct err *kvm_clock_set(struct kvm_vm *vm, uint64_t clock_ns, uint64_t realtime_ns)
{
    struct kvm_clock_data data = {
        .clock = clock_ns,
        .flags = realtime_ns != 0 ? KVM_CLOCK_REALTIME : 0,
        .realtime = realtime_ns,
    };
    return kvm_ioctl(kvm_vm_fd(vm), KVM_SET_CLOCK, &data, "set the clock");
}
