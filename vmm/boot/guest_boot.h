/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest_boot.h - loads a kernel, its initrd and command line, and what its boot protocol wants,
 * into guest memory. Thread: loop; reads files.
 */
#ifndef VMM_BOOT_GUEST_BOOT_H
#define VMM_BOOT_GUEST_BOOT_H

#include <stdint.h>

#include "base/err.h"
#include "vmm/boot/kernel_image.h"

struct guest_memory;
struct kvm_vcpu;

struct guest_boot_config {
    const char *kernel;       /* path */
    const char *initrd;       /* path; NULL or "": none */
    const char *command_line; /* NULL: empty */
    uint64_t rsdp_address;
};

/* Where the first vCPU starts. */
struct boot_entry {
    enum kernel_protocol protocol;
    uint64_t address;
    uint64_t argument; /* boot_params or start info */
};

ERR_RESULT guest_boot_load(struct guest_memory *memory, const struct guest_boot_config *config,
                           struct boot_entry *out_entry);

/* Puts the vCPU, which is as after a reset, at the entry. */
ERR_RESULT boot_entry_apply(const struct boot_entry *entry, struct kvm_vcpu *vcpu);

#endif
