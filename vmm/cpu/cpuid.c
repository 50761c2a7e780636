/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpuid.c - see cpuid.h.
 */
#include "vmm/cpu/cpuid.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "vmm/cpu/cpu_model.h"
#include "vmm/cpu/cpuid_features.h"

#define BIT(n) ((uint32_t)1 << (n))

#define LEAF1_ECX_X2APIC       BIT(21)
#define LEAF1_ECX_TSC_DEADLINE BIT(24)
#define LEAF1_ECX_OSXSAVE      BIT(27)
#define LEAF1_ECX_HYPERVISOR   BIT(31)
#define LEAF1_EDX_HTT          BIT(28)
#define LEAF7_ECX_OSPKE        BIT(4)
#define EXTENDED_CMP_LEGACY    BIT(1)
#define XSAVE_LEGACY_BYTES     576u

static uint32_t *register_of(struct kvm_cpuid_entry2 *entry, enum cpuid_register reg)
{
    uint32_t *const registers[] = {&entry->eax, &entry->ebx, &entry->ecx, &entry->edx};

    return registers[reg];
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *table, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        bool is_indexed = (entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
        if (entry->function == function && (!is_indexed || entry->index == index))
            return entry;
    }
    return NULL;
}

static uint32_t features_of(const struct kvm_cpuid2 *table, const struct cpuid_feature_row *row)
{
    struct kvm_cpuid_entry2 *entry =
        find((struct kvm_cpuid2 *)(uintptr_t)table, row->function, row->index);

    return entry == NULL ? 0 : *register_of(entry, row->reg);
}

static struct err *table_create(uint32_t count, struct kvm_cpuid2 **out_table)
{
    struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + count * sizeof(table->entries[0]));
    if (table == NULL)
        return err_new(ERR_NO_MEMORY, "CPUID table");
    table->nent = count;
    *out_table = table;
    return NULL;
}

static struct err *table_copy(const struct kvm_cpuid2 *from, struct kvm_cpuid2 **out_table)
{
    TRY(table_create(from->nent, out_table));
    memcpy((*out_table)->entries, from->entries, from->nent * sizeof(from->entries[0]));
    return NULL;
}

static struct err *missing_feature(const char *what, const struct cpuid_feature_row *row,
                                   uint32_t missing)
{
    unsigned bit = (unsigned)__builtin_ctz(missing);
    char name[32];

    cpuid_feature_name(row, bit, name);
    return err_new(ERR_INCOMPATIBLE,
                   "%s: this host does not offer CPUID leaf 0x%x.%u %s bit %u "
                   "(%s)",
                   what, row->function, row->index, cpuid_register_name(row->reg), bit, name);
}

/* Bits that are not the host's to offer: KVM or the topology makes them. */
static uint32_t emulated_features(const struct cpuid_feature_row *row)
{
    if (row->function == 0x1 && row->reg == CPUID_ECX)
        return LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_X2APIC | LEAF1_ECX_OSXSAVE;
    if (row->function == 0x1 && row->reg == CPUID_EDX)
        return LEAF1_EDX_HTT;
    return 0;
}

/* Leaves that would describe performance counters, AMX tiles, power, cache allocation or SGX. */
static bool is_hidden(uint32_t function)
{
    static const uint32_t hidden[] = {
        0x5,  0x9,  0xa,  0xf,  0x10,       0x12,       0x14,       0x18,       0x1a,      0x1b,
        0x1c, 0x1d, 0x1e, 0x20, 0x8000000a, 0x8000001b, 0x8000001f, 0x80000020, 0x80000022};

    for (size_t i = 0; i < ARRAY_COUNT(hidden); i++) {
        if (hidden[i] == function)
            return true;
    }
    return false;
}

static void hide_leaves(struct kvm_cpuid2 *table)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < table->nent; i++) {
        if (!is_hidden(table->entries[i].function))
            table->entries[kept++] = table->entries[i];
    }
    table->nent = kept;
}

/* Feature leaves keep only sub-leaves and registers that the table of features knows. */
static struct err *mask_features(struct kvm_cpuid2 *table, const struct kvm_cpuid2 *host,
                                 const char *model_name)
{
    struct cpu_model model;

    TRY(cpu_model_load(model_name, &model));
    for (size_t i = 0; i < cpuid_feature_row_count; i++) {
        const struct cpuid_feature_row *row = &cpuid_feature_rows[i];
        uint32_t missing = model.required[i] & ~features_of(host, row) & ~emulated_features(row);
        if (missing != 0)
            return missing_feature(model_name, row, missing);
        struct kvm_cpuid_entry2 *entry = find(table, row->function, row->index);
        if (entry != NULL)
            *register_of(entry, row->reg) &= model.shown[i];
    }
    struct kvm_cpuid_entry2 *more = find(table, 0x7, 1);
    if (more != NULL)
        more->ebx = more->ecx = more->edx = 0;
    struct kvm_cpuid_entry2 *most = find(table, 0x7, 0);
    if (most != NULL) {
        most->eax = MIN(most->eax, 1u);
        most->ecx &= ~LEAF7_ECX_OSPKE; /* KVM follows CR4 */
    }
    return NULL;
}

/* XSAVE: only user state components that are offered, and the size that they need. */
static void limit_xsave(struct kvm_cpuid2 *table)
{
    uint64_t xcr0 = cpuid_xcr0(table);
    uint32_t size = XSAVE_LEGACY_BYTES;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        bool is_component = entry->function == 0xd && entry->index >= 2;
        if (is_component && (entry->index >= 64 || (xcr0 >> entry->index & 1) == 0))
            continue;
        if (is_component)
            size = MAX(size, entry->ebx + entry->eax);
        table->entries[kept++] = *entry;
    }
    table->nent = kept;

    struct kvm_cpuid_entry2 *main_leaf = find(table, 0xd, 0);
    if (main_leaf != NULL) {
        main_leaf->edx = 0;
        main_leaf->ebx = size;
        main_leaf->ecx = size;
    }
    struct kvm_cpuid_entry2 *second = find(table, 0xd, 1);
    if (second != NULL)
        second->ebx = second->ecx = second->edx = 0;
}

static uint32_t bits_for(unsigned count)
{
    return count <= 1 ? 0 : 32u - (uint32_t)__builtin_clz(count - 1);
}

/* One socket; each vCPU is a core with one thread. */
static void set_topology(struct kvm_cpuid2 *table, unsigned vcpus)
{
    for (uint32_t i = 0; i < table->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &table->entries[i];
        switch (entry->function) {
        case 0x1:
            entry->ebx = (entry->ebx & 0xff00u) | vcpus << 16;
            entry->ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_X2APIC;
            entry->ecx &= ~LEAF1_ECX_OSXSAVE; /* KVM follows CR4 */
            entry->edx = (entry->edx & ~LEAF1_EDX_HTT) | (vcpus > 1 ? LEAF1_EDX_HTT : 0);
            break;
        case 0x4: entry->eax = (entry->eax & 0x3fffu) | (vcpus - 1) << 26; break;
        case 0xb:
        case 0x1f:
            entry->eax = entry->index == 0 ? 0 : entry->index == 1 ? bits_for(vcpus) : 0;
            entry->ebx = entry->index == 0 ? 1 : entry->index == 1 ? vcpus : 0;
            entry->ecx = entry->index | (entry->index == 0   ? 0x100u
                                         : entry->index == 1 ? 0x200u
                                                             : 0);
            entry->edx = 0;
            break;
        case 0x80000001: entry->ecx &= ~EXTENDED_CMP_LEGACY; break;
        case 0x80000008: entry->ecx = (vcpus - 1) | bits_for(vcpus) << 12; break;
        case 0x8000001d: entry->eax = entry->eax & 0x3fffu; break;
        case 0x8000001e: entry->eax = entry->ebx = entry->ecx = 0; break;
        default: break;
        }
    }
}

/* The kernel lists only some of the topology's sub-leaves; guests read 0 and 1. */
static void drop_topology_tail(struct kvm_cpuid2 *table)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < table->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &table->entries[i];
        if ((entry->function == 0xb || entry->function == 0x1f))
            continue;
        table->entries[kept++] = *entry;
    }
    table->nent = kept;
}

static void add_topology(struct kvm_cpuid2 *table)
{
    for (uint32_t index = 0; index < 3; index++)
        table->entries[table->nent++] = (struct kvm_cpuid_entry2){
            .function = 0xb, .index = index, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX};
}

struct err *cpuid_build(const struct kvm_cpuid2 *host, const char *model_name, unsigned vcpus,
                        struct kvm_cpuid2 **out_table)
{
    CLEANUP(cleanup_free) struct kvm_cpuid2 *table = NULL;

    TRY(table_create(host->nent + 3, &table));
    memcpy(table->entries, host->entries, host->nent * sizeof(host->entries[0]));
    table->nent = host->nent;

    hide_leaves(table);
    drop_topology_tail(table);
    add_topology(table);
    TRY(mask_features(table, host, model_name));
    limit_xsave(table);
    set_topology(table, vcpus);
    struct kvm_cpuid_entry2 *first = find(table, 0, 0);
    if (first != NULL)
        first->eax = MAX(MIN(first->eax, 0x16u), 0xdu);
    *out_table = TAKE_PTR(table);
    return NULL;
}

struct err *cpuid_check(const struct kvm_cpuid2 *host, const struct kvm_cpuid2 *table)
{
    for (size_t i = 0; i < cpuid_feature_row_count; i++) {
        const struct cpuid_feature_row *row = &cpuid_feature_rows[i];
        uint32_t missing =
            features_of(table, row) & ~features_of(host, row) & ~emulated_features(row);
        if (missing != 0)
            return missing_feature("the machine's CPU", row, missing);
    }
    return NULL;
}

struct err *cpuid_for_vcpu(const struct kvm_cpuid2 *table, unsigned index,
                           struct kvm_cpuid2 **out_table)
{
    struct kvm_cpuid2 *copy = NULL;
    TRY(table_copy(table, &copy));

    for (uint32_t i = 0; i < copy->nent; i++) {
        struct kvm_cpuid_entry2 *entry = &copy->entries[i];
        if (entry->function == 0x1)
            entry->ebx |= index << 24;
        else if (entry->function == 0xb || entry->function == 0x1f)
            entry->edx = index;
        else if (entry->function == 0x8000001e) {
            entry->eax = index;
            entry->ebx = index;
        }
    }
    *out_table = copy;
    return NULL;
}

uint64_t cpuid_xcr0(const struct kvm_cpuid2 *table)
{
    const struct kvm_cpuid_entry2 *entry = find((struct kvm_cpuid2 *)(uintptr_t)table, 0xd, 0);

    return entry == NULL ? 1 : entry->eax | (uint64_t)entry->edx << 32;
}

struct err *cpuid_to_description(const struct kvm_cpuid2 *table,
                                 Ferry__MachineDescription *description)
{
    description->cpuid = calloc(table->nent, sizeof(Ferry__CpuidLeaf *));
    if (description->cpuid == NULL)
        return err_new(ERR_NO_MEMORY, "CPUID table");

    for (uint32_t i = 0; i < table->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &table->entries[i];
        Ferry__CpuidLeaf *leaf = malloc(sizeof(*leaf));
        if (leaf == NULL)
            return err_new(ERR_NO_MEMORY, "CPUID table");
        ferry__cpuid_leaf__init(leaf);
        leaf->function = entry->function;
        leaf->index = entry->index;
        leaf->flags = entry->flags;
        leaf->eax = entry->eax;
        leaf->ebx = entry->ebx;
        leaf->ecx = entry->ecx;
        leaf->edx = entry->edx;
        description->cpuid[description->n_cpuid++] = leaf;
    }
    return NULL;
}

struct err *cpuid_from_description(const Ferry__MachineDescription *description,
                                   struct kvm_cpuid2 **out_table)
{
    struct kvm_cpuid2 *table = NULL;

    if (description->n_cpuid > CPUID_LEAVES_MAX)
        return err_new(ERR_INVALID, "machine description: %zu CPUID leaves; the most is %u",
                       description->n_cpuid, CPUID_LEAVES_MAX);
    TRY(table_create((uint32_t)description->n_cpuid, &table));
    for (size_t i = 0; i < description->n_cpuid; i++) {
        const Ferry__CpuidLeaf *leaf = description->cpuid[i];
        table->entries[i] = (struct kvm_cpuid_entry2){
            .function = leaf->function,
            .index = leaf->index,
            .flags = leaf->flags,
            .eax = leaf->eax,
            .ebx = leaf->ebx,
            .ecx = leaf->ecx,
            .edx = leaf->edx,
        };
    }
    *out_table = table;
    return NULL;
}
