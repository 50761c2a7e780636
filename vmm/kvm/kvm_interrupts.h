/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_interrupts.h - interrupts.h over KVM: lines, message routes with an irqfd each, ioeventfds.
 */
#ifndef VMM_KVM_KVM_INTERRUPTS_H
#define VMM_KVM_KVM_INTERRUPTS_H

#include "base/err.h"
#include "vmm/bus/interrupts.h"

struct kvm_interrupts;
struct kvm_vm;

/* After the interrupt chips. The vm must outlive it. */
ERR_RESULT kvm_interrupts_create(struct kvm_vm *vm, struct kvm_interrupts **out_interrupts);
void kvm_interrupts_destroy(struct kvm_interrupts *interrupts); /* accepts NULL */
struct interrupts *kvm_interrupts_base(struct kvm_interrupts *interrupts);

#endif
