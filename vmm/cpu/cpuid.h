/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid.h - what the guest's CPUID instruction answers: made from a model and the host for a
 * machine that boots, taken over and checked for one that arrives.
 *
 * Tables are struct kvm_cpuid2, without the fields that differ between vCPUs. free() them.
 * Thread: any.
 */
#ifndef VMM_CPU_CPUID_H
#define VMM_CPU_CPUID_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/machine.pb-c.h"

#define CPUID_LEAVES_MAX 256u

/* model: as cpu_model_load takes it. ERR_INCOMPATIBLE names what the host lacks for it. */
ERR_RESULT cpuid_build(const struct kvm_cpuid2 *host, const char *model, unsigned vcpus,
                       struct kvm_cpuid2 **out_table);

/* Does the host offer every feature that the table shows the guest? ERR_INCOMPATIBLE names leaf,
 * register, bit and the feature's name. */
ERR_RESULT cpuid_check(const struct kvm_cpuid2 *host, const struct kvm_cpuid2 *table);

/* The table of one vCPU: its APIC ids in place. */
ERR_RESULT cpuid_for_vcpu(const struct kvm_cpuid2 *table, unsigned index,
                          struct kvm_cpuid2 **out_table);

/* XCR0 bits that the table allows. */
uint64_t cpuid_xcr0(const struct kvm_cpuid2 *table);

ERR_RESULT cpuid_to_description(const struct kvm_cpuid2 *table,
                                Ferry__MachineDescription *description);
ERR_RESULT cpuid_from_description(const Ferry__MachineDescription *description,
                                  struct kvm_cpuid2 **out_table);

#endif
