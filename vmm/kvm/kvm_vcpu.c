/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_vcpu.c - see kvm_vcpu.h.
 * Tested by: tests/kernel/kvm_behaviour_test.c, and every test that runs a machine.
 */
#include "vmm/kvm/kvm_vcpu.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "vmm/kvm/kvm_ioctl_internal.h"
#include "vmm/kvm/kvm_vm.h"

struct kvm_vcpu {
    int fd;
    struct kvm_run *run; /* mapped */
    size_t run_bytes;
    bool has_xsave2;
    uint32_t tsc_khz; /* kept, because KVM answers nothing about a vCPU that runs */
};

static struct err *map_run(struct kvm_vm *vm, struct kvm_vcpu *vcpu)
{
    int bytes = kvm_vm_run_bytes(vm);
    if (bytes < (int)sizeof(struct kvm_run))
        return err_new(ERR_IO, "KVM: size of a vCPU's shared page");

    void *run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return err_errno(errno, "KVM: map a vCPU's shared page");
    vcpu->run = run;
    vcpu->run_bytes = (size_t)bytes;
    return NULL;
}

static struct err *read_tsc_khz(struct kvm_vcpu *vcpu)
{
    int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
    if (khz <= 0)
        return err_errno(khz < 0 ? errno : EIO, "KVM: read the TSC's frequency");
    vcpu->tsc_khz = (uint32_t)khz;
    return NULL;
}

struct err *kvm_vcpu_create(struct kvm_vm *vm, uint32_t index, struct kvm_vcpu **out_vcpu)
{
    struct kvm_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (vcpu == NULL)
        return err_new(ERR_NO_MEMORY, "vCPU %u", index);
    vcpu->has_xsave2 = kvm_vm_capability(vm, KVM_CAP_XSAVE2) > 0;

    vcpu->fd = ioctl(kvm_vm_fd(vm), KVM_CREATE_VCPU, (unsigned long)index);
    struct err *err =
        vcpu->fd < 0 ? err_errno(errno, "KVM: create vCPU %u", index) : map_run(vm, vcpu);
    if (err == NULL)
        err = read_tsc_khz(vcpu);
    if (err != NULL) {
        kvm_vcpu_destroy(vcpu);
        return err;
    }

    *out_vcpu = vcpu;
    return NULL;
}

void kvm_vcpu_destroy(struct kvm_vcpu *vcpu)
{
    if (vcpu == NULL)
        return;
    if (vcpu->run != NULL)
        (void)munmap(vcpu->run, vcpu->run_bytes);
    cleanup_fd(&vcpu->fd);
    free(vcpu);
}

int kvm_vcpu_run(struct kvm_vcpu *vcpu)
{
    return ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? errno : 0;
}

void kvm_vcpu_set_immediate_exit(struct kvm_vcpu *vcpu, bool is_set)
{
    /* Read by the kernel on the vCPU's thread; a signal follows a set, so order needs no more. */
    __atomic_store_n(&vcpu->run->immediate_exit, is_set ? 1 : 0, __ATOMIC_RELEASE);
}

struct kvm_run *kvm_vcpu_exit(struct kvm_vcpu *vcpu)
{
    return vcpu->run;
}

struct err *kvm_vcpu_set_cpuid(struct kvm_vcpu *vcpu, struct kvm_cpuid2 *cpuid)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid, "set a vCPU's CPUID");
}

struct err *kvm_vcpu_get_regs(struct kvm_vcpu *vcpu, struct kvm_regs *out_regs)
{
    return kvm_ioctl(vcpu->fd, KVM_GET_REGS, out_regs, "read registers");
}

struct err *kvm_vcpu_set_regs(struct kvm_vcpu *vcpu, struct kvm_regs *regs)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_REGS, regs, "set registers");
}

struct err *kvm_vcpu_get_sregs(struct kvm_vcpu *vcpu, struct kvm_sregs2 *out_sregs)
{
    return kvm_ioctl(vcpu->fd, KVM_GET_SREGS2, out_sregs, "read system registers");
}

struct err *kvm_vcpu_set_sregs(struct kvm_vcpu *vcpu, struct kvm_sregs2 *sregs)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_SREGS2, sregs, "set system registers");
}

struct err *kvm_vcpu_get_xsave(struct kvm_vcpu *vcpu, void *out_xsave)
{
    return kvm_ioctl(vcpu->fd, vcpu->has_xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, out_xsave,
                     "read the extended state");
}

struct err *kvm_vcpu_set_xsave(struct kvm_vcpu *vcpu, void *xsave)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, xsave, "set the extended state");
}

struct err *kvm_vcpu_get_xcr0(struct kvm_vcpu *vcpu, uint64_t *out_xcr0)
{
    struct kvm_xcrs xcrs = {0};
    TRY(kvm_ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs, "read XCR0"));

    uint64_t xcr0 = 1; /* what a CPU without XSAVE behaves like */
    for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++) {
        if (xcrs.xcrs[i].xcr == 0)
            xcr0 = xcrs.xcrs[i].value;
    }
    *out_xcr0 = xcr0;
    return NULL;
}

struct err *kvm_vcpu_set_xcr0(struct kvm_vcpu *vcpu, uint64_t xcr0)
{
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = xcr0}}};

    return kvm_ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs, "set XCR0");
}

struct err *kvm_vcpu_get_lapic(struct kvm_vcpu *vcpu, struct kvm_lapic_state *out_lapic)
{
    return kvm_ioctl(vcpu->fd, KVM_GET_LAPIC, out_lapic, "read the local APIC");
}

struct err *kvm_vcpu_set_lapic(struct kvm_vcpu *vcpu, struct kvm_lapic_state *lapic)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_LAPIC, lapic, "set the local APIC");
}

struct err *kvm_vcpu_get_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *out_events)
{
    return kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, out_events, "read pending events");
}

struct err *kvm_vcpu_set_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, events, "set pending events");
}

struct err *kvm_vcpu_get_mp_state(struct kvm_vcpu *vcpu, uint32_t *out_state)
{
    struct kvm_mp_state state = {0};
    TRY(kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &state, "read the run state"));
    *out_state = state.mp_state;
    return NULL;
}

struct err *kvm_vcpu_set_mp_state(struct kvm_vcpu *vcpu, uint32_t state)
{
    struct kvm_mp_state mp_state = {.mp_state = state};

    return kvm_ioctl(vcpu->fd, KVM_SET_MP_STATE, &mp_state, "set the run state");
}

struct err *kvm_vcpu_get_debugregs(struct kvm_vcpu *vcpu, struct kvm_debugregs *out_regs)
{
    return kvm_ioctl(vcpu->fd, KVM_GET_DEBUGREGS, out_regs, "read debug registers");
}

struct err *kvm_vcpu_set_debugregs(struct kvm_vcpu *vcpu, struct kvm_debugregs *regs)
{
    return kvm_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, regs, "set debug registers");
}

static struct err *call_msrs(struct kvm_vcpu *vcpu, unsigned long request, struct kvm_msrs *msrs,
                             const char *what, size_t *out_done)
{
    int done = ioctl(vcpu->fd, request, msrs);
    if (done < 0)
        return err_errno(errno, "KVM: %s", what);
    *out_done = (size_t)done;
    return NULL;
}

struct err *kvm_vcpu_get_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *inout_msrs, size_t *out_done)
{
    return call_msrs(vcpu, KVM_GET_MSRS, inout_msrs, "read MSRs", out_done);
}

struct err *kvm_vcpu_set_msrs(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs, size_t *out_done)
{
    return call_msrs(vcpu, KVM_SET_MSRS, msrs, "set MSRs", out_done);
}

uint32_t kvm_vcpu_tsc_khz(const struct kvm_vcpu *vcpu)
{
    return vcpu->tsc_khz;
}

struct err *kvm_vcpu_set_tsc_khz(struct kvm_vcpu *vcpu, uint32_t khz)
{
    if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
        return err_errno(errno, "KVM: set the TSC's frequency to %u kHz", khz);
    return read_tsc_khz(vcpu);
}

static struct kvm_device_attr tsc_offset_attribute(uint64_t *offset)
{
    return (struct kvm_device_attr){
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)offset,
    };
}

struct err *kvm_vcpu_get_tsc_offset(struct kvm_vcpu *vcpu, uint64_t *out_offset)
{
    struct kvm_device_attr attribute = tsc_offset_attribute(out_offset);

    if (ioctl(vcpu->fd, KVM_HAS_DEVICE_ATTR, &attribute) < 0)
        return err_new(ERR_INCOMPATIBLE, "this host's KVM does not tell TSC offsets");
    return kvm_ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attribute, "read the TSC's offset");
}

struct err *kvm_vcpu_set_tsc_offset(struct kvm_vcpu *vcpu, uint64_t offset)
{
    struct kvm_device_attr attribute = tsc_offset_attribute(&offset);

    return kvm_ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attribute, "set the TSC's offset");
}

void kvm_vcpu_tell_paused(struct kvm_vcpu *vcpu)
{
    /* EINVAL: this guest has no kvmclock, and so nobody to tell. */
    (void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
}
