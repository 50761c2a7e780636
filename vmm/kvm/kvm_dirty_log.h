/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_dirty_log.h - dirty_log.h over KVM's log; region i of guest memory is slot i.
 */
#ifndef VMM_KVM_KVM_DIRTY_LOG_H
#define VMM_KVM_KVM_DIRTY_LOG_H

#include <stdint.h>

#include "vmm/memory/dirty_log.h"

struct kvm_vm;

struct kvm_dirty_log_reader {
    struct dirty_log base;
    struct kvm_vm *vm;
    uint32_t slot_count;
};

/* The vm must outlive it; nothing to finish. */
void kvm_dirty_log_init(struct kvm_dirty_log_reader *reader, struct kvm_vm *vm,
                        uint32_t slot_count);

#endif
