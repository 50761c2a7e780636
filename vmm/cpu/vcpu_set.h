/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_set.h - all vCPUs of a machine: a thread each, which run and stand together.
 *
 * Created standing. Thread: loop, unless a function says otherwise.
 */
#ifndef VMM_CPU_VCPU_SET_H
#define VMM_CPU_VCPU_SET_H

#include <stdint.h>

#include "base/err.h"
#include "vmm/cpu/vcpu_exit.h"

struct kvm_vcpu;
struct kvm_vm;
struct vcpu_set;

struct vcpu_set_config {
    unsigned count;
    struct vcpu_buses buses;
    /* A vCPU stopped by itself and stands until the next pause and resume; the others run on.
     * Thread: vcpu. The reason is only valid during the call. */
    void (*on_stop)(void *context, enum vcpu_verdict verdict, const char *reason);
    void *context;
};

/* Creates the vCPUs; their threads start with the first resume. */
ERR_RESULT vcpu_set_create(struct kvm_vm *vm, const struct vcpu_set_config *config,
                           struct vcpu_set **out_set);
void vcpu_set_destroy(struct vcpu_set *set); /* ends the threads; accepts NULL */

/* Every vCPU stands outside of the guest when it returns, with no access half done. */
void vcpu_set_pause(struct vcpu_set *set);
ERR_RESULT vcpu_set_resume(struct vcpu_set *set);

unsigned vcpu_set_count(const struct vcpu_set *set);
struct kvm_vcpu *vcpu_set_kvm(struct vcpu_set *set, unsigned index);

/* CLOCK_MONOTONIC just before the first entry since vcpu_set_forget_first_run, 0 before it; and
 * just after the last vCPU stopped for the latest pause. */
uint64_t vcpu_set_first_run_ns(struct vcpu_set *set);
void vcpu_set_forget_first_run(struct vcpu_set *set);
uint64_t vcpu_set_last_exit_ns(struct vcpu_set *set);
/* Just before the first entry since the latest resume; 0 until there was one. */
uint64_t vcpu_set_entered_ns(struct vcpu_set *set);

#endif
