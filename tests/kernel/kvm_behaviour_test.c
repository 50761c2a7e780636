/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_behaviour_test.c - what Ferry relies on of KVM: the dirty log in two slots, completion of a
 * half-done access, notifications without an exit, clocks that catch up.
 *
 * Guests are a few bytes of 32-bit code in flat protected mode, which stop by writing port 0x10.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "vmm/bus/interrupts.h"
#include "vmm/kvm/kvm_clock.h"
#include "vmm/kvm/kvm_dirty_log.h"
#include "vmm/kvm/kvm_interrupts.h"
#include "vmm/kvm/kvm_speed.h"
#include "vmm/kvm/kvm_vcpu.h"
#include "vmm/kvm/kvm_vm.h"
#include "vmm/memory/dirty_tracker.h"
#include "vmm/memory/guest_memory.h"

#define CODE_ADDRESS 0x1000u
#define HIGH_SLOT    (4 * GIB)

struct fixture {
    struct guest_memory *memory;
    struct kvm_vm *vm;
    struct kvm_vcpu *vcpu;
};

static int set_up(void **state)
{
    static struct fixture fixture;

    ASSERT_OK(kvm_vm_create(&fixture.vm));
    ASSERT_OK(guest_memory_create(2 * MIB, MIB, &fixture.memory));
    for (uint32_t i = 0; i < 2; i++) {
        const struct guest_region region = guest_memory_region(fixture.memory, i);
        uint8_t *host = guest_memory_mapping(fixture.memory);
        ASSERT_OK(kvm_vm_add_slot(fixture.vm, i, region.start.value, host + region.file_offset,
                                  region.bytes));
    }
    ASSERT_OK(kvm_vm_create_irqchip(fixture.vm));
    ASSERT_OK(kvm_vcpu_create(fixture.vm, 0, &fixture.vcpu));
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    kvm_vcpu_destroy(fixture->vcpu);
    kvm_vm_destroy(fixture->vm);
    guest_memory_destroy(fixture->memory);
    return 0;
}

static void load_code(struct fixture *fixture, const uint8_t *code, size_t len)
{
    struct kvm_sregs2 sregs;
    struct kvm_regs regs = {.rip = CODE_ADDRESS, .rflags = 2};

    assert_true(guest_write(fixture->memory, gpa(CODE_ADDRESS), code, len));
    ASSERT_OK(kvm_vcpu_get_sregs(fixture->vcpu, &sregs));
    sregs.cr0 |= 1;
    sregs.cs = (struct kvm_segment){
        .limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.ds = (struct kvm_segment){
        .limit = UINT32_MAX, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    ASSERT_OK(kvm_vcpu_set_sregs(fixture->vcpu, &sregs));
    ASSERT_OK(kvm_vcpu_set_regs(fixture->vcpu, &regs));
}

static uint32_t run_until_exit(struct fixture *fixture)
{
    int error = EINTR;

    for (int i = 0; i < 1000 && error != 0; i++)
        error = kvm_vcpu_run(fixture->vcpu);
    assert_int_equal(error, 0);
    return kvm_vcpu_exit(fixture->vcpu)->exit_reason;
}

#define FIXTURE struct fixture *fixture = *unused

TEST(writes_of_a_vcpu_are_logged_once_they_are_cleared)
{
    FIXTURE;
    /* mov byte [0x5000], 1; mov byte [0x9000], 1; out 0x10, al; jmp to the start */
    static const uint8_t code[] = {0xc6, 0x05, 0x00, 0x50, 0x00, 0x00, 0x01, 0xc6, 0x05,
                                   0x00, 0x90, 0x00, 0x00, 0x01, 0xe6, 0x10, 0xeb, 0xee};
    struct kvm_dirty_log_reader log;
    struct dirty_tracker *tracker = NULL;
    struct dirty_consumer *consumer = NULL;
    uint64_t dirty = 0;

    load_code(fixture, code, sizeof(code));
    kvm_dirty_log_init(&log, fixture->vm, 2);
    ASSERT_OK(dirty_tracker_create(fixture->memory, &log.base, &tracker));
    ASSERT_OK(dirty_tracker_attach(tracker, NULL, &consumer));
    uint64_t *words = mmap(NULL, bitmap_bytes(512), PROT_READ | PROT_WRITE, MAP_SHARED,
                           dirty_consumer_fd(consumer), 0);
    assert_ptr_not_equal(words, MAP_FAILED);

    for (int round = 0; round < 3; round++) {
        ASSERT_OK(dirty_consumer_harvest(consumer, 0, 0, &dirty));
        if (round == 0)
            assert_int_equal(dirty, 512);
        memset(words, 0, bitmap_bytes(512));
        ASSERT_OK(dirty_consumer_harvest(consumer, 0, 0, &dirty));
        assert_int_equal(dirty, 0);
        assert_int_equal(run_until_exit(fixture), KVM_EXIT_IO);
        assert_true(guest_write(fixture->memory, gpa(HIGH_SLOT), "x", 1));
        ASSERT_OK(dirty_consumer_harvest(consumer, 0, 0, &dirty));
        assert_int_equal(dirty, 3);
        assert_true(bitmap_test(words, 5));
        assert_true(bitmap_test(words, 9));
        assert_true(bitmap_test(words, 256));
    }
    (void)munmap(words, bitmap_bytes(512));
    dirty_consumer_detach(consumer);
    dirty_tracker_destroy(tracker);
}

TEST(an_immediate_exit_completes_a_port_read)
{
    FIXTURE;
    static const uint8_t code[] = {0xe4, 0x10, 0x90, 0x90}; /* in al, 0x10 */
    struct kvm_regs regs;

    load_code(fixture, code, sizeof(code));
    assert_int_equal(run_until_exit(fixture), KVM_EXIT_IO);
    struct kvm_run *run = kvm_vcpu_exit(fixture->vcpu);
    *((uint8_t *)run + run->io.data_offset) = 0x5a;
    kvm_vcpu_set_immediate_exit(fixture->vcpu, true);
    assert_int_equal(kvm_vcpu_run(fixture->vcpu), EINTR);
    kvm_vcpu_set_immediate_exit(fixture->vcpu, false);

    ASSERT_OK(kvm_vcpu_get_regs(fixture->vcpu, &regs));
    assert_int_equal(regs.rax & 0xff, 0x5a);
    assert_int_equal(regs.rip, CODE_ADDRESS + 2);
}

TEST(a_notification_signals_its_eventfd_without_an_exit)
{
    FIXTURE;
    /* mov [0xd0000000], eax; out 0x10, al */
    static const uint8_t code[] = {0xa3, 0x00, 0x00, 0x00, 0xd0, 0xe6, 0x10};
    struct kvm_interrupts *kvm_interrupts = NULL;
    uint64_t count = 0;

    ASSERT_OK(kvm_interrupts_create(fixture->vm, &kvm_interrupts));
    struct interrupts *interrupts = kvm_interrupts_base(kvm_interrupts);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT_OK(interrupts_notify_add(interrupts, 0xd0000000, fd));
    load_code(fixture, code, sizeof(code));
    assert_int_equal(run_until_exit(fixture), KVM_EXIT_IO);
    assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);

    interrupts_notify_remove(interrupts, 0xd0000000, fd);
    load_code(fixture, code, sizeof(code));
    assert_int_equal(run_until_exit(fixture), KVM_EXIT_MMIO);
    close(fd);
    kvm_interrupts_destroy(kvm_interrupts);
}

TEST(message_routes_can_be_set_changed_and_taken_away)
{
    FIXTURE;
    struct kvm_interrupts *kvm_interrupts = NULL;
    uint32_t first = 0;
    uint32_t second = 0;

    ASSERT_OK(kvm_interrupts_create(fixture->vm, &kvm_interrupts));
    struct interrupts *interrupts = kvm_interrupts_base(kvm_interrupts);
    ASSERT_OK(interrupts_msi_create(interrupts, &first));
    ASSERT_OK(interrupts_msi_create(interrupts, &second));
    assert_int_not_equal(first, second);
    interrupts_msi_fire(interrupts, first);
    ASSERT_OK(interrupts_msi_set(interrupts, first, 0xfee00000, 0x41));
    ASSERT_OK(interrupts_msi_set(interrupts, first, 0xfee00000, 0x42));
    interrupts_msi_fire(interrupts, first);
    interrupts_set_line(interrupts, 4, true);
    interrupts_set_line(interrupts, 4, false);
    interrupts_msi_destroy(interrupts, first);
    interrupts_msi_destroy(interrupts, second);
    kvm_interrupts_destroy(kvm_interrupts);
}

TEST(a_clock_that_is_set_catches_up_and_never_runs_backwards)
{
    FIXTURE;
    struct kvm_clock_reading reading;
    uint64_t saved_ns = (uint64_t)100 * NS_PER_S;
    uint64_t now = clock_realtime_ns();

    ASSERT_OK(kvm_clock_set(fixture->vm, saved_ns, now - (uint64_t)5 * NS_PER_S));
    ASSERT_OK(kvm_clock_get(fixture->vm, &reading));
    assert_in_range(reading.clock_ns, (uint64_t)105 * NS_PER_S, (uint64_t)110 * NS_PER_S);

    ASSERT_OK(kvm_clock_set(fixture->vm, saved_ns, now + (uint64_t)1000 * NS_PER_S));
    ASSERT_OK(kvm_clock_get(fixture->vm, &reading));
    assert_in_range(reading.clock_ns, saved_ns, saved_ns + (uint64_t)5 * NS_PER_S);
}

TEST(the_speed_of_guests_can_be_measured)
{
    bool is_interpreted = false;

    ASSERT_OK(kvm_speed_measure(&is_interpreted));
}

int main(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        (void)fprintf(stderr, "skipped: /dev/kvm is missing or not permitted\n");
        return 77;
    }
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(writes_of_a_vcpu_are_logged_once_they_are_cleared),
        CASE(an_immediate_exit_completes_a_port_read),
        CASE(a_notification_signals_its_eventfd_without_an_exit),
        CASE(message_routes_can_be_set_changed_and_taken_away),
        CASE(a_clock_that_is_set_catches_up_and_never_runs_backwards),
        cmocka_unit_test(the_speed_of_guests_can_be_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
