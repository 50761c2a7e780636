/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_vm.h - the kernel's side of one virtual machine: memory slots, interrupt chips, dirty log.
 *
 * Order matters for the time that a start takes: memory slots, then kvm_vm_create_irqchip, then
 * vCPUs. A slot that is added after the chips waits milliseconds for the kernel.
 * Thread: loop, unless a function says otherwise.
 */
#ifndef VMM_KVM_KVM_VM_H
#define VMM_KVM_KVM_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct kvm_cpuid2;
struct kvm_irqchip;
struct kvm_pit_state2;
struct kvm_vm;

/* Opens /dev/kvm, checks what it can do and creates an empty machine. */
ERR_RESULT kvm_vm_create(struct kvm_vm **out_vm);
void kvm_vm_destroy(struct kvm_vm *vm); /* accepts NULL */

ERR_RESULT kvm_vm_add_slot(struct kvm_vm *vm, uint32_t slot, uint64_t guest_address, void *host,
                           uint64_t bytes);
ERR_RESULT kvm_vm_create_irqchip(struct kvm_vm *vm); /* PICs, IOAPIC, LAPICs, PIT */

/* The dirty log of a slot: one bit a page, in words. Thread: any, one at a time.
 * `first` and `count` are multiples of 64, but the end of the slot. */
ERR_RESULT kvm_vm_set_logging(struct kvm_vm *vm, uint32_t slot, bool is_on);
ERR_RESULT kvm_vm_get_log(struct kvm_vm *vm, uint32_t slot, uint64_t *out_words);
ERR_RESULT kvm_vm_clear_log(struct kvm_vm *vm, uint32_t slot, uint64_t first, uint64_t count,
                            const uint64_t *words);

/* What this host can offer a guest; the vm owns it. */
const struct kvm_cpuid2 *kvm_vm_supported_cpuid(const struct kvm_vm *vm);
/* MSRs that KVM says are to be saved. */
ERR_RESULT kvm_vm_msr_indices(struct kvm_vm *vm, uint32_t **out_indices, size_t *out_count);
/* Bits of XCR0 that a guest may set. */
uint64_t kvm_vm_supported_xcr0(const struct kvm_vm *vm);
size_t kvm_vm_xsave_bytes(const struct kvm_vm *vm);
int kvm_vm_capability(const struct kvm_vm *vm, int capability);

ERR_RESULT kvm_vm_get_irqchip(struct kvm_vm *vm, struct kvm_irqchip *inout_chip);
ERR_RESULT kvm_vm_set_irqchip(struct kvm_vm *vm, struct kvm_irqchip *chip);
ERR_RESULT kvm_vm_get_pit(struct kvm_vm *vm, struct kvm_pit_state2 *out_pit);
ERR_RESULT kvm_vm_set_pit(struct kvm_vm *vm, struct kvm_pit_state2 *pit);

/* For the other files of this folder. */
int kvm_vm_fd(const struct kvm_vm *vm);
int kvm_vm_run_bytes(const struct kvm_vm *vm);

#endif
