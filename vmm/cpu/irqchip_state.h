/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irqchip_state.h - the interrupt chips that KVM models, two 8259s and an IOAPIC, as a device:
 * section "irqchip".
 */
#ifndef VMM_CPU_IRQCHIP_STATE_H
#define VMM_CPU_IRQCHIP_STATE_H

#include "vmm/devices/device.h"

struct kvm_vm;

/* What the chips hold now is what a reset restores. The vm outlives the device. */
ERR_RESULT irqchip_device_create(struct device_host *host, struct kvm_vm *vm,
                                 struct device **out_device);

#endif
