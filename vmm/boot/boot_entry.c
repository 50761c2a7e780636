/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot_entry.c - the registers with which each boot protocol begins; see guest_boot.h.
 * Tested by: tests/system, which boots kernels of both kinds.
 */
#include <linux/kvm.h>

#include "vmm/boot/boot_memory_map.h"
#include "vmm/boot/guest_boot.h"
#include "vmm/kvm/kvm_vcpu.h"

#define CR0_PE   ((uint64_t)1 << 0)
#define CR0_ET   ((uint64_t)1 << 4)
#define CR0_PG   ((uint64_t)1 << 31)
#define CR4_PAE  ((uint64_t)1 << 5)
#define EFER_LME ((uint64_t)1 << 8)
#define EFER_LMA ((uint64_t)1 << 10)

#define RFLAGS_FIXED    2u
#define SELECTOR_CODE32 0x08u
#define SELECTOR_CODE64 0x10u
#define SELECTOR_DATA   0x18u
#define GDT_LIMIT       31u

static struct kvm_segment flat_code(bool is_64)
{
    return (struct kvm_segment){
        .limit = UINT32_MAX,
        .selector = is_64 ? SELECTOR_CODE64 : SELECTOR_CODE32,
        .type = 11, /* execute, read, accessed */
        .present = 1,
        .db = !is_64,
        .s = 1,
        .l = is_64,
        .g = 1,
    };
}

static struct kvm_segment flat_data(void)
{
    return (struct kvm_segment){
        .limit = UINT32_MAX,
        .selector = SELECTOR_DATA,
        .type = 3, /* read, write, accessed */
        .present = 1,
        .db = 1,
        .s = 1,
        .g = 1,
    };
}

static void set_system_registers(struct kvm_sregs2 *sregs, bool is_64)
{
    sregs->cs = flat_code(is_64);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = flat_data();
    /* PVH: "tr: must be a 32-bit TSS (active) with a base of '0' and a limit of '0x67'" */
    sregs->tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
    sregs->ldt = (struct kvm_segment){.type = 2, .unusable = 1};
    sregs->gdt = (struct kvm_dtable){.base = BOOT_GDT_ADDRESS, .limit = GDT_LIMIT};
    sregs->idt = (struct kvm_dtable){.base = 0, .limit = 0};
    sregs->cr0 = CR0_PE | CR0_ET;
    sregs->cr4 = 0;
    sregs->efer = 0;
    if (is_64) {
        sregs->cr0 |= CR0_PG;
        sregs->cr3 = BOOT_PAGE_TABLES_ADDRESS;
        sregs->cr4 = CR4_PAE;
        sregs->efer = EFER_LME | EFER_LMA;
    }
}

struct err *boot_entry_apply(const struct boot_entry *entry, struct kvm_vcpu *vcpu)
{
    bool is_64 = entry->protocol == KERNEL_LINUX64;
    struct kvm_sregs2 sregs;
    TRY(kvm_vcpu_get_sregs(vcpu, &sregs));
    set_system_registers(&sregs, is_64);
    TRY(kvm_vcpu_set_sregs(vcpu, &sregs));

    struct kvm_regs regs = {
        .rip = entry->address,
        .rflags = RFLAGS_FIXED,
        .rsi = is_64 ? entry->argument : 0,
        .rbx = is_64 ? 0 : entry->argument,
    };
    return kvm_vcpu_set_regs(vcpu, &regs);
}
