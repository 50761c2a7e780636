/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/unit_test.h"
#include "vmm/cpu/cpuid.h"
#include "vmm/cpu/cpuid_features.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

/* A host with every feature that anybody could want. */
static struct kvm_cpuid2 *rich_host(void)
{
    static const struct kvm_cpuid_entry2 entries[] = {
        {.function = 0x0, .eax = 0x1f},
        {.function = 0x1, .ebx = 0x00010800, .ecx = 0xffffffff, .edx = 0xffffffff},
        {.function = 0x7,
         .index = 0,
         .flags = INDEXED,
         .eax = 2,
         .ebx = ~0u,
         .ecx = ~0u,
         .edx = ~0u},
        {.function = 0x7, .index = 1, .flags = INDEXED, .eax = ~0u, .ebx = ~0u},
        {.function = 0xa, .eax = 0x07300802},
        {.function = 0xb, .index = 0, .flags = INDEXED, .edx = 5},
        {.function = 0xd, .index = 0, .flags = INDEXED, .eax = 0x602e7, .ebx = 11008, .ecx = 11008},
        {.function = 0xd, .index = 1, .flags = INDEXED, .eax = 0x1f, .ecx = 0x1900},
        {.function = 0xd, .index = 2, .flags = INDEXED, .eax = 256, .ebx = 576},
        {.function = 0xd, .index = 5, .flags = INDEXED, .eax = 64, .ebx = 1088},
        {.function = 0xd, .index = 6, .flags = INDEXED, .eax = 512, .ebx = 1152},
        {.function = 0xd, .index = 7, .flags = INDEXED, .eax = 1024, .ebx = 1664},
        {.function = 0xd, .index = 18, .flags = INDEXED, .eax = 8192, .ebx = 2816},
        {.function = 0x40000001, .eax = ~0u},
        {.function = 0x80000001, .ecx = ~0u, .edx = ~0u},
        {.function = 0x80000008, .eax = 0x3030, .ebx = ~0u},
    };
    const uint32_t count = sizeof(entries) / sizeof(entries[0]);
    struct kvm_cpuid2 *host = calloc(1, sizeof(*host) + sizeof(entries));

    host->nent = count;
    memcpy(host->entries, entries, sizeof(entries));
    return host;
}

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *table, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < table->nent; i++) {
        if (table->entries[i].function == function && table->entries[i].index == index)
            return &table->entries[i];
    }
    return NULL;
}

static struct kvm_cpuid2 *build(const char *model, unsigned vcpus)
{
    struct kvm_cpuid2 *host = rich_host();
    struct kvm_cpuid2 *table = NULL;

    ASSERT_OK(cpuid_build(host, model, vcpus, &table));
    free(host);
    return table;
}

TEST(state_that_is_not_moved_is_not_offered)
{
    struct kvm_cpuid2 *table = build("host", 1);

    assert_null(leaf(table, 0xa, 0));
    assert_null(leaf(table, 0xd, 18));
    assert_int_equal(cpuid_xcr0(table), 0x2e7);
    assert_int_equal(leaf(table, 0xd, 0)->ecx, 2688);
    assert_int_equal(leaf(table, 0xd, 1)->ecx, 0);
    assert_int_equal(leaf(table, 0x1, 0)->ecx & 1u << 5, 0);
    free(table);
}

TEST(a_named_model_shows_its_own_features_only)
{
    struct kvm_cpuid2 *v2 = build("x86-64-v2", 1);
    struct kvm_cpuid2 *v3 = build("x86-64-v3", 1);

    assert_int_equal(cpuid_xcr0(v2), 0x3);
    assert_int_equal(leaf(v2, 0x7, 0)->ebx & 1u << 5, 0);
    assert_int_equal(cpuid_xcr0(v3), 0x7);
    assert_int_not_equal(leaf(v3, 0x7, 0)->ebx & 1u << 5, 0);
    assert_int_equal(leaf(v3, 0x7, 0)->ebx & 1u << 16, 0);
    free(v2);
    free(v3);
}

TEST(a_model_that_the_host_lacks_is_refused_by_name)
{
    struct kvm_cpuid2 *host = rich_host();
    struct kvm_cpuid2 *table = NULL;

    leaf(host, 0x7, 0)->ebx &= ~(1u << 5);
    struct err *err = cpuid_build(host, "x86-64-v3", 1, &table);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "leaf 0x7.0 ebx bit 5 (avx2)"));
    assert_fails(err, ERR_INCOMPATIBLE);
    assert_fails(cpuid_build(host, "pentium", 1, &table), ERR_INVALID);
    free(host);
}

TEST(a_table_from_a_richer_host_is_refused_by_name)
{
    struct kvm_cpuid2 *poor = rich_host();
    struct kvm_cpuid2 *table = build("host", 2);

    ASSERT_OK(cpuid_check(poor, table));
    leaf(poor, 0x7, 0)->ebx &= ~(1u << 16);
    struct err *err = cpuid_check(poor, table);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "(avx512f)"));
    assert_fails(err, ERR_INCOMPATIBLE);
    free(poor);
    free(table);
}

TEST(vcpus_differ_in_their_apic_ids_only)
{
    struct kvm_cpuid2 *table = build("host", 6);
    struct kvm_cpuid2 *third = NULL;

    ASSERT_OK(cpuid_for_vcpu(table, 3, &third));
    assert_int_equal(leaf(third, 0x1, 0)->ebx, 3u << 24 | 6u << 16 | 0x0800);
    assert_int_equal(leaf(third, 0xb, 1)->edx, 3);
    assert_int_equal(leaf(third, 0xb, 1)->eax, 3);
    assert_int_equal(leaf(third, 0xb, 1)->ebx, 6);
    assert_int_equal(leaf(third, 0x80000008, 0)->ecx, 5 | 3 << 12);
    free(third);
    free(table);
}

TEST(a_table_survives_its_way_through_a_description)
{
    struct kvm_cpuid2 *table = build("host", 2);
    struct kvm_cpuid2 *again = NULL;
    Ferry__MachineDescription *description = malloc(sizeof(*description));

    ferry__machine_description__init(description);
    ASSERT_OK(cpuid_to_description(table, description));
    ASSERT_OK(cpuid_from_description(description, &again));
    assert_int_equal(again->nent, table->nent);
    for (uint32_t i = 0; i < table->nent; i++)
        assert_memory_equal(&again->entries[i], &table->entries[i], 7 * sizeof(uint32_t));
    ferry__machine_description__free_unpacked(description, NULL);
    free(table);
    free(again);
}

TEST(every_feature_row_names_32_bits)
{
    for (size_t i = 0; i < cpuid_feature_row_count; i++) {
        unsigned names = 1;
        for (const char *at = cpuid_feature_rows[i].names; *at != '\0'; at++)
            names += *at == ' ';
        if (names != 32)
            fail_msg("leaf 0x%x.%u %s has %u names", cpuid_feature_rows[i].function,
                     cpuid_feature_rows[i].index, cpuid_register_name(cpuid_feature_rows[i].reg),
                     names);
        assert_int_equal(cpuid_feature_rows[i].v2 & ~cpuid_feature_rows[i].offered, 0);
        assert_int_equal(cpuid_feature_rows[i].v3 & ~cpuid_feature_rows[i].offered, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_that_is_not_moved_is_not_offered),
        cmocka_unit_test(a_named_model_shows_its_own_features_only),
        cmocka_unit_test(a_model_that_the_host_lacks_is_refused_by_name),
        cmocka_unit_test(a_table_from_a_richer_host_is_refused_by_name),
        cmocka_unit_test(vcpus_differ_in_their_apic_ids_only),
        cmocka_unit_test(a_table_survives_its_way_through_a_description),
        cmocka_unit_test(every_feature_row_names_32_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
