/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_vcpu.h - the kernel's side of one vCPU.
 *
 * Thread: create and destroy: loop. run: the vCPU's own. set_immediate_exit: any. The rest: loop,
 * while the vCPU stands still.
 */
#ifndef VMM_KVM_KVM_VCPU_H
#define VMM_KVM_KVM_VCPU_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct kvm_vcpu;
struct kvm_vm;

ERR_RESULT kvm_vcpu_create(struct kvm_vm *vm, uint32_t index, struct kvm_vcpu **out_vcpu);
void kvm_vcpu_destroy(struct kvm_vcpu *vcpu); /* accepts NULL */

/* Returns 0 with an exit in kvm_vcpu_exit, or an errno; EINTR is a kick. */
int kvm_vcpu_run(struct kvm_vcpu *vcpu);
/* While set, run finishes what the last exit left and returns EINTR at once. */
void kvm_vcpu_set_immediate_exit(struct kvm_vcpu *vcpu, bool is_set);
struct kvm_run *kvm_vcpu_exit(struct kvm_vcpu *vcpu);

ERR_RESULT kvm_vcpu_set_cpuid(struct kvm_vcpu *vcpu, struct kvm_cpuid2 *cpuid);
ERR_RESULT kvm_vcpu_get_regs(struct kvm_vcpu *vcpu, struct kvm_regs *out_regs);
ERR_RESULT kvm_vcpu_set_regs(struct kvm_vcpu *vcpu, struct kvm_regs *regs);
ERR_RESULT kvm_vcpu_get_sregs(struct kvm_vcpu *vcpu, struct kvm_sregs2 *out_sregs);
ERR_RESULT kvm_vcpu_set_sregs(struct kvm_vcpu *vcpu, struct kvm_sregs2 *sregs);
/* `xsave` has kvm_vm_xsave_bytes. */
ERR_RESULT kvm_vcpu_get_xsave(struct kvm_vcpu *vcpu, void *out_xsave);
ERR_RESULT kvm_vcpu_set_xsave(struct kvm_vcpu *vcpu, void *xsave);
ERR_RESULT kvm_vcpu_get_xcr0(struct kvm_vcpu *vcpu, uint64_t *out_xcr0);
ERR_RESULT kvm_vcpu_set_xcr0(struct kvm_vcpu *vcpu, uint64_t xcr0);
ERR_RESULT kvm_vcpu_get_lapic(struct kvm_vcpu *vcpu, struct kvm_lapic_state *out_lapic);
ERR_RESULT kvm_vcpu_set_lapic(struct kvm_vcpu *vcpu, struct kvm_lapic_state *lapic);
ERR_RESULT kvm_vcpu_get_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *out_events);
ERR_RESULT kvm_vcpu_set_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events);
ERR_RESULT kvm_vcpu_get_mp_state(struct kvm_vcpu *vcpu, uint32_t *out_state);
ERR_RESULT kvm_vcpu_set_mp_state(struct kvm_vcpu *vcpu, uint32_t state);
ERR_RESULT kvm_vcpu_get_debugregs(struct kvm_vcpu *vcpu, struct kvm_debugregs *out_regs);
ERR_RESULT kvm_vcpu_set_debugregs(struct kvm_vcpu *vcpu, struct kvm_debugregs *regs);

/* The kernel handles MSRs in order and stops at the first that it refuses: *out_done of them. */
ERR_RESULT kvm_vcpu_get_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *inout_msrs, size_t *out_done);
ERR_RESULT kvm_vcpu_set_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs, size_t *out_done);

uint32_t kvm_vcpu_tsc_khz(const struct kvm_vcpu *vcpu); /* also while it runs */
/* Only a host that scales can run a guest at another frequency than its own. */
ERR_RESULT kvm_vcpu_set_tsc_khz(struct kvm_vcpu *vcpu, uint32_t khz);
/* The offset between host and guest TSC; ERR_INCOMPATIBLE where the kernel has no such control. */
ERR_RESULT kvm_vcpu_get_tsc_offset(struct kvm_vcpu *vcpu, uint64_t *out_offset);
ERR_RESULT kvm_vcpu_set_tsc_offset(struct kvm_vcpu *vcpu, uint64_t offset);

/* Tells the guest's soft-lockup watchdog that it stood still; no-op for guests without kvmclock. */
void kvm_vcpu_tell_paused(struct kvm_vcpu *vcpu);

#endif
