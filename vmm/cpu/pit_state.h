/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pit_state.h - the timer chip that KVM models, an 8254, as a device: section "pit".
 */
#ifndef VMM_CPU_PIT_STATE_H
#define VMM_CPU_PIT_STATE_H

#include "vmm/devices/device.h"

struct kvm_vm;

/* What the chip holds now is what a reset restores. The vm outlives the device. */
ERR_RESULT pit_device_create(struct device_host *host, struct kvm_vm *vm,
                             struct device **out_device);

#endif
