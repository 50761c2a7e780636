/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vcpu_state.h - a vCPU as a device: section "vcpu", one instance each.
 */
#ifndef VMM_CPU_VCPU_STATE_H
#define VMM_CPU_VCPU_STATE_H

#include "proto/device_state.pb-c.h"
#include "vmm/devices/device.h"

struct kvm_cpuid2;
struct kvm_vcpu;
struct kvm_vm;

/* The vCPU is as created, with its CPUID set: what it holds now is what a reset restores. Both and
 * the table outlive the device. */
ERR_RESULT vcpu_device_create(struct device_host *host, struct kvm_vm *vm, struct kvm_vcpu *vcpu,
                              unsigned index, const struct kvm_cpuid2 *cpuid,
                              struct device **out_device);

/* Ranges and relations of a received message; xcr0_allowed are the guest's XCR0 bits. */
ERR_RESULT vcpu_state_validate(const Ferry__VcpuState *state, uint64_t xcr0_allowed,
                               size_t xsave_bytes);

#endif
