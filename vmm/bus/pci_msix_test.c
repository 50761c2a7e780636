/* SPDX-License-Identifier: Apache-2.0 */
/* pci_msix_test.c - vectors, masks and pending bits. */
#include <string.h>

#include "base/unit_test.h"
#include "vmm/bus/interrupts_fake.h"
#include "vmm/bus/pci_msix.h"

struct bench {
    struct interrupts_fake *interrupts;
    struct pci_msix *msix;
};

static void bench_init(struct bench *bench)
{
    ASSERT_OK(interrupts_fake_create(&bench->interrupts));
    ASSERT_OK(pci_msix_create(interrupts_fake_interrupts(bench->interrupts), 3, &bench->msix));
}

static void bench_finish(struct bench *bench)
{
    pci_msix_destroy(bench->msix);
    assert_int_equal(interrupts_fake_vector_count(bench->interrupts), 0);
    interrupts_fake_destroy(bench->interrupts);
}

static void set_word(struct bench *bench, unsigned vector, unsigned word, uint32_t value)
{
    uint8_t data[4];

    memcpy(data, &value, 4);
    pci_msix_table_write(bench->msix, vector * 16 + word * 4, data, 4);
}

static void set_vector(struct bench *bench, unsigned vector, uint32_t data)
{
    set_word(bench, vector, 0, 0xfee00000);
    set_word(bench, vector, 1, 0);
    set_word(bench, vector, 2, data);
    set_word(bench, vector, 3, 0);
}

TEST(an_open_vector_fires_its_message)
{
    struct bench bench;
    bench_init(&bench);
    pci_msix_set_control(bench.msix, true, false);
    set_vector(&bench, 1, 0x41);

    pci_msix_fire(bench.msix, 1);
    pci_msix_fire(bench.msix, 3);
    pci_msix_fire(bench.msix, 0xffff);

    assert_int_equal(interrupts_fake_fired(bench.interrupts, 0x41), 1);
    bench_finish(&bench);
}

TEST(a_masked_vector_is_pending_until_it_is_unmasked)
{
    struct bench bench;
    uint8_t pending = 0;
    bench_init(&bench);
    pci_msix_set_control(bench.msix, true, false);
    set_vector(&bench, 2, 0x42);
    set_word(&bench, 2, 3, 1);

    pci_msix_fire(bench.msix, 2);
    pci_msix_fire(bench.msix, 2);
    pci_msix_pending_read(bench.msix, 0, &pending, 1);
    assert_int_equal(pending, 1 << 2);
    assert_int_equal(interrupts_fake_fired(bench.interrupts, 0x42), 0);
    set_word(&bench, 2, 3, 0);

    assert_int_equal(interrupts_fake_fired(bench.interrupts, 0x42), 1);
    pci_msix_pending_read(bench.msix, 0, &pending, 1);
    assert_int_equal(pending, 0);
    bench_finish(&bench);
}

TEST(the_function_mask_holds_all_vectors_back)
{
    struct bench bench;
    bench_init(&bench);
    pci_msix_set_control(bench.msix, true, true);
    set_vector(&bench, 0, 0x40);

    pci_msix_fire(bench.msix, 0);
    assert_int_equal(interrupts_fake_fired(bench.interrupts, 0x40), 0);
    pci_msix_set_control(bench.msix, true, false);

    assert_int_equal(interrupts_fake_fired(bench.interrupts, 0x40), 1);
    bench_finish(&bench);
}

TEST(the_table_reads_back_and_odd_accesses_do_nothing)
{
    struct bench bench;
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    bench_init(&bench);
    set_vector(&bench, 0, 0x1234);

    pci_msix_table_write(bench.msix, 9, data, 1);
    pci_msix_table_write(bench.msix, 3 * 16, data, 8);
    pci_msix_table_read(bench.msix, 8, data, 8);

    assert_memory_equal(data, ((uint8_t[]){0x34, 0x12, 0, 0, 0, 0, 0, 0}), 8);
    pci_msix_table_read(bench.msix, 3 * 16, data, 8);
    assert_int_equal(data[0], 0);
    bench_finish(&bench);
}

TEST(a_restored_table_fires_and_keeps_what_was_pending)
{
    struct bench source;
    struct bench target;
    Ferry__PciMsixState *state = NULL;
    bench_init(&source);
    bench_init(&target);
    pci_msix_set_control(source.msix, true, false);
    set_vector(&source, 0, 0x40);
    set_vector(&source, 1, 0x41);
    set_word(&source, 1, 3, 1);
    pci_msix_fire(source.msix, 1);

    ASSERT_OK(pci_msix_save(source.msix, &state));
    ASSERT_OK(pci_msix_validate(target.msix, state));
    pci_msix_apply(target.msix, state);
    ASSERT_OK(pci_msix_start(target.msix));
    pci_msix_fire(target.msix, 0);
    set_word(&target, 1, 3, 0);

    assert_int_equal(interrupts_fake_fired(target.interrupts, 0x40), 1);
    assert_int_equal(interrupts_fake_fired(target.interrupts, 0x41), 1);
    ferry__pci_msix_state__free_unpacked(state, NULL);
    bench_finish(&source);
    bench_finish(&target);
}

TEST(a_table_of_another_size_is_refused)
{
    struct bench bench;
    Ferry__PciMsixState state = FERRY__PCI_MSIX_STATE__INIT;
    bench_init(&bench);

    assert_fails(pci_msix_validate(bench.msix, &state), ERR_INVALID);
    assert_fails(pci_msix_validate(bench.msix, NULL), ERR_INVALID);

    bench_finish(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_vector_fires_its_message),
        cmocka_unit_test(a_masked_vector_is_pending_until_it_is_unmasked),
        cmocka_unit_test(the_function_mask_holds_all_vectors_back),
        cmocka_unit_test(the_table_reads_back_and_odd_accesses_do_nothing),
        cmocka_unit_test(a_restored_table_fires_and_keeps_what_was_pending),
        cmocka_unit_test(a_table_of_another_size_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
