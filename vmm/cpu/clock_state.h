/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock_state.h - the guest's time as a device: kvmclock and the vCPUs' TSCs, section "clock".
 */
#ifndef VMM_CPU_CLOCK_STATE_H
#define VMM_CPU_CLOCK_STATE_H

#include <stdbool.h>

#include "vmm/devices/device.h"

struct kvm_vm;
struct vcpu_set;

/* The vm and the vCPUs outlive the device. */
ERR_RESULT clock_device_create(struct device_host *host, struct kvm_vm *vm, struct vcpu_set *vcpus,
                               struct device **out_device);

/* What to do about a guest whose TSC ran at another frequency than this host's. */
enum tsc_verdict {
    TSC_SAME,     /* as good as equal: KVM would not scale it either */
    TSC_SCALE,    /* the host must scale, and the guest is refused if it can not */
    TSC_TOLERATE, /* scale if the host can; clocks that trust the TSC drift until NTP corrects */
};
enum tsc_verdict tsc_judge(uint64_t guest_khz, uint64_t host_khz);

/* A TSC that stood at `tsc` goes on after elapsed_ns. */
uint64_t tsc_advance(uint64_t tsc, uint64_t elapsed_ns, uint64_t khz);

#endif
