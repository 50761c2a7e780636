/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_exit.h - what to do when a vCPU left the guest.
 */
#ifndef VMM_CPU_VCPU_EXIT_H
#define VMM_CPU_VCPU_EXIT_H

#include <stddef.h>

struct io_bus;
struct kvm_run;
struct lock;

/* Where a vCPU's accesses go; outlives the vCPUs. */
struct vcpu_buses {
    struct io_bus *ports;
    struct io_bus *mmio;
    struct lock *lock; /* LOCK_DEVICES: held around every access */
};

enum vcpu_verdict {
    VCPU_RUN_ON,
    VCPU_RESET, /* the guest wants, or has forced, a reset */
    VCPU_POWER_OFF,
    VCPU_FAILED, /* it can not run on; out_reason says why */
};

#define VCPU_REASON_BYTES 256u

/* Carries out the access that the exit asks for, if it is one.
 * Thread: vcpu; may block on the device lock. */
enum vcpu_verdict vcpu_exit_handle(const struct vcpu_buses *buses, struct kvm_run *run,
                                   char out_reason[VCPU_REASON_BYTES]);

#endif
