/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_speed.c - see kvm_speed.h.
 * Tested by: tests/kernel/kvm_behaviour_test.c.
 */
#include "vmm/kvm/kvm_speed.h"

#include <string.h>
#include <sys/mman.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "vmm/kvm/kvm_ioctl_internal.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"

#define LOOPS_FEW    250u /* two instructions each */
#define LOOPS_MANY   2250u
#define ROUNDS       3u
#define CODE_ADDRESS 0u
#define RUNS_MAX     100u /* signals may interrupt it */

/* What the additional loops of a long run take: 4 us at a thousand million instructions a second,
 * 2 ms at two million. Taking the difference leaves out what entering a guest costs, which is a lot
 * on hosts that are guests themselves. */
#define INTERPRETED_NS ((LOOPS_MANY - LOOPS_FEW) * (uint64_t)200)

/* loop: dec ecx; jnz loop; hlt */
static const uint8_t code[] = {0x49, 0x75, 0xfd, 0xf4};

static struct err *set_flat_mode(struct kvm_vcpu *vcpu, uint32_t loops)
{
    struct kvm_sregs2 sregs;
    struct kvm_regs regs = {.rip = CODE_ADDRESS, .rflags = 2, .rcx = loops};

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

/* The shortest of some runs: the others were disturbed. */
static struct err *time_loop(struct kvm_vcpu *vcpu, uint32_t loops, uint64_t *out_ns)
{
    uint64_t best = UINT64_MAX;

    for (unsigned round = 0; round < ROUNDS; round++) {
        TRY(set_flat_mode(vcpu, loops));
        uint64_t start = clock_monotonic_ns();
        int error = EINTR;
        for (unsigned i = 0; i < RUNS_MAX && (error == EINTR || error == EAGAIN); i++)
            error = kvm_vcpu_run(vcpu);
        if (error != 0 || kvm_vcpu_exit(vcpu)->exit_reason != KVM_EXIT_HLT)
            return err_new(ERR_IO, "KVM: a test loop did not run (error %d, exit %u)", error,
                           kvm_vcpu_exit(vcpu)->exit_reason);
        best = MIN(best, clock_monotonic_ns() - start);
    }
    *out_ns = best;
    return NULL;
}

static struct err *measure_in(struct kvm_vm *vm, void *page, bool *out_is_interpreted)
{
    struct kvm_vcpu *vcpu = NULL;
    uint64_t few_ns = 0;
    uint64_t many_ns = 0;

    memcpy(page, code, sizeof(code));
    TRY(kvm_vm_add_slot(vm, 0, CODE_ADDRESS, page, PAGE_BYTES));
    TRY(kvm_vcpu_create(vm, 0, &vcpu));
    struct err *err = time_loop(vcpu, LOOPS_FEW, &few_ns);
    if (err == NULL)
        err = time_loop(vcpu, LOOPS_MANY, &many_ns);
    kvm_vcpu_destroy(vcpu);
    *out_is_interpreted = many_ns > few_ns + INTERPRETED_NS;
    return err;
}

struct err *kvm_speed_measure(bool *out_is_interpreted)
{
    struct kvm_vm *vm = NULL;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return err_errno(errno, "map a page");
    struct err *err = kvm_vm_create(&vm);
    if (err == NULL)
        err = measure_in(vm, page, out_is_interpreted);
    kvm_vm_destroy(vm);
    (void)munmap(page, PAGE_BYTES);
    return err == NULL ? NULL : err_wrap(err, "measure the speed of guest kernels");
}
