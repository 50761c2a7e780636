/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_vm.c - see kvm_vm.h.
 * Tested by: tests/kernel/kvm_behaviour_test.c, and every test that runs a machine.
 */
#include "vmm/kvm/kvm_vm.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "vmm/bus/platform_map.h"
#include "vmm/kvm/kvm_capability.h"
#include "vmm/kvm/kvm_ioctl_internal.h"

#define CPUID_ENTRIES_MAX 256u
#define MSR_INDICES_MAX   1024u
#define XCR0_AMX_BITS     ((uint64_t)3 << 17)

struct slot {
    uint64_t guest_address;
    uint64_t bytes;
    void *host;
};

struct kvm_vm {
    int kvm_fd;
    int fd;
    struct slot slots[MACHINE_REGIONS_MAX];
    struct kvm_cpuid2 *cpuid; /* owned */
    uint64_t xcr0;
    size_t xsave_bytes;
};

static int query(void *context, int capability)
{
    const struct kvm_vm *vm = context;

    return ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, capability);
}

static struct err *open_kvm(struct kvm_vm *vm)
{
    vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vm->kvm_fd < 0 && (errno == ENOENT || errno == ENODEV))
        return err_new(ERR_NOT_FOUND, "open '/dev/kvm': this host has no KVM; load kvm_intel or "
                                      "kvm_amd, or enable virtualization in its firmware");
    if (vm->kvm_fd < 0 && (errno == EACCES || errno == EPERM))
        return err_new(ERR_DENIED,
                       "open '/dev/kvm': permission denied; join the group 'kvm' or run as root");
    if (vm->kvm_fd < 0)
        return err_errno(errno, "open '/dev/kvm'");
    if (ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return err_new(ERR_INCOMPATIBLE, "'/dev/kvm' speaks another version of its interface");
    return kvm_capabilities_check(query, vm);
}

static struct err *read_host_cpuid(struct kvm_vm *vm)
{
    vm->cpuid = calloc(1, sizeof(*vm->cpuid) + CPUID_ENTRIES_MAX * sizeof(vm->cpuid->entries[0]));
    if (vm->cpuid == NULL)
        return err_new(ERR_NO_MEMORY, "CPUID table");
    vm->cpuid->nent = CPUID_ENTRIES_MAX;
    TRY(kvm_ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, vm->cpuid, "read the supported CPUID"));

    /* AMX state needs a permission of the process and more than one page of XSAVE area; it is not
     * offered to guests. */
    vm->xcr0 = 3;
    for (uint32_t i = 0; i < vm->cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *entry = &vm->cpuid->entries[i];
        if (entry->function == 0xd && entry->index == 0)
            vm->xcr0 = ((uint64_t)entry->edx << 32 | entry->eax) & ~XCR0_AMX_BITS;
    }
    return NULL;
}

static struct err *create_vm(struct kvm_vm *vm)
{
    vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        return err_errno(errno, "KVM: create a machine");

    int xsave_bytes = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    vm->xsave_bytes = sizeof(struct kvm_xsave);
    if (xsave_bytes > (int)vm->xsave_bytes)
        vm->xsave_bytes = (size_t)xsave_bytes;

    struct kvm_enable_cap log = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET},
    };
    return kvm_ioctl(vm->fd, KVM_ENABLE_CAP, &log, "enable the dirty log's manual mode");
}

struct err *kvm_vm_create(struct kvm_vm **out_vm)
{
    struct kvm_vm *vm = calloc(1, sizeof(*vm));
    if (vm == NULL)
        return err_new(ERR_NO_MEMORY, "KVM machine");
    vm->kvm_fd = -1;
    vm->fd = -1;

    struct err *err = open_kvm(vm);
    if (err == NULL)
        err = read_host_cpuid(vm);
    if (err == NULL)
        err = create_vm(vm);
    if (err != NULL) {
        kvm_vm_destroy(vm);
        return err;
    }

    *out_vm = vm;
    return NULL;
}

void kvm_vm_destroy(struct kvm_vm *vm)
{
    if (vm == NULL)
        return;
    cleanup_fd(&vm->fd);
    cleanup_fd(&vm->kvm_fd);
    free(vm->cpuid);
    free(vm);
}

static struct err *set_slot(struct kvm_vm *vm, uint32_t slot, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = vm->slots[slot].guest_address,
        .memory_size = vm->slots[slot].bytes,
        .userspace_addr = (uintptr_t)vm->slots[slot].host,
    };
    return kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region, "set a memory slot");
}

struct err *kvm_vm_add_slot(struct kvm_vm *vm, uint32_t slot, uint64_t guest_address, void *host,
                            uint64_t bytes)
{
    vm->slots[slot] = (struct slot){guest_address, bytes, host};
    return set_slot(vm, slot, 0);
}

struct err *kvm_vm_create_irqchip(struct kvm_vm *vm)
{
    /* Only VMX without unrestricted guests needs these two, and only before the first vCPU. */
    uint64_t identity = ADDRESS_KVM_IDENTITY;
    if (kvm_vm_capability(vm, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
        TRY(kvm_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity, "place the identity map"));
    if (kvm_vm_capability(vm, KVM_CAP_SET_TSS_ADDR) > 0 &&
        ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)ADDRESS_KVM_TSS) < 0)
        return err_errno(errno, "KVM: place the TSS");

    TRY(kvm_ioctl(vm->fd, KVM_CREATE_IRQCHIP, NULL, "create the interrupt chips"));
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    return kvm_ioctl(vm->fd, KVM_CREATE_PIT2, &pit, "create the timer chip");
}

struct err *kvm_vm_set_logging(struct kvm_vm *vm, uint32_t slot, bool is_on)
{
    return set_slot(vm, slot, is_on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

struct err *kvm_vm_get_log(struct kvm_vm *vm, uint32_t slot, uint64_t *out_words)
{
    struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = out_words};

    return kvm_ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log, "read the dirty log");
}

struct err *kvm_vm_clear_log(struct kvm_vm *vm, uint32_t slot, uint64_t first, uint64_t count,
                             const uint64_t *words)
{
    struct kvm_clear_dirty_log log = {
        .slot = slot,
        .first_page = first,
        .num_pages = (uint32_t)count,
        .dirty_bitmap = (void *)(uintptr_t)words,
    };
    return kvm_ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log, "clear the dirty log");
}

const struct kvm_cpuid2 *kvm_vm_supported_cpuid(const struct kvm_vm *vm)
{
    return vm->cpuid;
}

struct err *kvm_vm_msr_indices(struct kvm_vm *vm, uint32_t **out_indices, size_t *out_count)
{
    CLEANUP(cleanup_free)
    struct kvm_msr_list *list = calloc(1, sizeof(*list) + MSR_INDICES_MAX * sizeof(uint32_t));
    if (list == NULL)
        return err_new(ERR_NO_MEMORY, "MSR list");
    list->nmsrs = MSR_INDICES_MAX;
    TRY(kvm_ioctl(vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, list, "list the MSRs to save"));

    uint32_t *indices = calloc(list->nmsrs + 1, sizeof(*indices));
    if (indices == NULL)
        return err_new(ERR_NO_MEMORY, "MSR list");
    memcpy(indices, list->indices, list->nmsrs * sizeof(*indices));
    *out_count = list->nmsrs;
    *out_indices = indices;
    return NULL;
}

uint64_t kvm_vm_supported_xcr0(const struct kvm_vm *vm)
{
    return vm->xcr0;
}

size_t kvm_vm_xsave_bytes(const struct kvm_vm *vm)
{
    return vm->xsave_bytes;
}

int kvm_vm_capability(const struct kvm_vm *vm, int capability)
{
    return ioctl(vm->fd, KVM_CHECK_EXTENSION, capability);
}

struct err *kvm_vm_get_irqchip(struct kvm_vm *vm, struct kvm_irqchip *inout_chip)
{
    return kvm_ioctl(vm->fd, KVM_GET_IRQCHIP, inout_chip, "read an interrupt chip");
}

struct err *kvm_vm_set_irqchip(struct kvm_vm *vm, struct kvm_irqchip *chip)
{
    return kvm_ioctl(vm->fd, KVM_SET_IRQCHIP, chip, "set an interrupt chip");
}

struct err *kvm_vm_get_pit(struct kvm_vm *vm, struct kvm_pit_state2 *out_pit)
{
    return kvm_ioctl(vm->fd, KVM_GET_PIT2, out_pit, "read the timer chip");
}

struct err *kvm_vm_set_pit(struct kvm_vm *vm, struct kvm_pit_state2 *pit)
{
    return kvm_ioctl(vm->fd, KVM_SET_PIT2, pit, "set the timer chip");
}

int kvm_vm_fd(const struct kvm_vm *vm)
{
    return vm->fd;
}

int kvm_vm_run_bytes(const struct kvm_vm *vm)
{
    return ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
}
