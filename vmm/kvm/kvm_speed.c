/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_speed.c - see kvm_speed.h.
 * Tested by: tests/kernel/kvm_behaviour_test.c.
 */
#include "vmm/kvm/kvm_speed.h"

#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/limits.h"
#include "vmm/kvm/kvm_ioctl_internal.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"

#define LOOPS        4000u /* two instructions each */
#define CODE_ADDRESS 0u
#define RUNS_MAX     100u /* signals may interrupt it */

/* At a thousand million instructions a second the loop takes 8 us, at two million 4 ms. */
#define INTERPRETED_NS (1u * (uint64_t)NS_PER_MS)

/* loop: dec ecx; jnz loop; hlt */
static const uint8_t code[] = {0x49, 0x75, 0xfd, 0xf4};

static struct err *set_flat_mode(struct kvm_vcpu *vcpu)
{
    struct kvm_sregs2 sregs;
    struct kvm_regs regs = {.rip = CODE_ADDRESS, .rflags = 2, .rcx = LOOPS};

    TRY(kvm_vcpu_get_sregs(vcpu, &sregs));
    sregs.cr0 |= 1; /* protected mode: older hosts emulate the real one */
    sregs.cs = (struct kvm_segment){
        .limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.ds = (struct kvm_segment){
        .limit = UINT32_MAX, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    TRY(kvm_vcpu_set_sregs(vcpu, &sregs));
    return kvm_vcpu_set_regs(vcpu, &regs);
}

static struct err *time_loop(struct kvm_vcpu *vcpu, uint64_t *out_ns)
{
    TRY(set_flat_mode(vcpu));
    uint64_t start = clock_monotonic_ns();
    int error = EINTR;
    for (unsigned i = 0; i < RUNS_MAX && (error == EINTR || error == EAGAIN); i++)
        error = kvm_vcpu_run(vcpu);
    if (error != 0 || kvm_vcpu_exit(vcpu)->exit_reason != KVM_EXIT_HLT)
        return err_new(ERR_IO, "KVM: a test loop did not run (error %d, exit %u)", error,
                       kvm_vcpu_exit(vcpu)->exit_reason);
    *out_ns = clock_monotonic_ns() - start;
    return NULL;
}

static struct err *measure_in(struct kvm_vm *vm, void *page, uint64_t *out_ns)
{
    struct kvm_vcpu *vcpu = NULL;

    memcpy(page, code, sizeof(code));
    TRY(kvm_vm_add_slot(vm, 0, CODE_ADDRESS, page, PAGE_BYTES));
    TRY(kvm_vcpu_create(vm, 0, &vcpu));
    /* The first run also pays for the first touch of everything. */
    struct err *err = time_loop(vcpu, out_ns);
    if (err == NULL && *out_ns > INTERPRETED_NS)
        err = time_loop(vcpu, out_ns);
    kvm_vcpu_destroy(vcpu);
    return err;
}

struct err *kvm_speed_measure(bool *out_is_interpreted)
{
    struct kvm_vm *vm = NULL;
    uint64_t ns = 0;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return err_errno(errno, "map a page");
    struct err *err = kvm_vm_create(&vm);
    if (err == NULL)
        err = measure_in(vm, page, &ns);
    kvm_vm_destroy(vm);
    (void)munmap(page, PAGE_BYTES);
    if (err != NULL)
        return err_wrap(err, "measure the speed of guest kernels");
    *out_is_interpreted = ns > INTERPRETED_NS;
    return NULL;
}
