/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/kvm.h>
#include <string.h>

#include "base/unit_test.h"
#include "vmm/kvm/kvm_capability.h"

struct fake_kvm {
    int missing;
    int clock_bits;
};

static int fake_query(void *context, int capability)
{
    const struct fake_kvm *kvm = context;

    if (capability == kvm->missing)
        return 0;
    return capability == KVM_CAP_ADJUST_CLOCK ? kvm->clock_bits : 0xff;
}

TEST(a_kvm_that_has_everything_is_accepted)
{
    struct fake_kvm kvm = {.missing = -1, .clock_bits = 0xff};

    ASSERT_OK(kvm_capabilities_check(fake_query, &kvm));
}

TEST(a_missing_capability_is_named_with_its_remedy)
{
    struct fake_kvm kvm = {.missing = KVM_CAP_SREGS2, .clock_bits = 0xff};
    struct err *err = kvm_capabilities_check(fake_query, &kvm);

    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "KVM_CAP_SREGS2"));
    assert_non_null(strstr(err_message(err), "use Linux 5.14"));
    assert_fails(err, ERR_INCOMPATIBLE);
}

TEST(a_capability_without_the_needed_bits_counts_as_missing)
{
    struct fake_kvm kvm = {.missing = -1, .clock_bits = KVM_CLOCK_TSC_STABLE};

    assert_fails(kvm_capabilities_check(fake_query, &kvm), ERR_INCOMPATIBLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kvm_that_has_everything_is_accepted),
        cmocka_unit_test(a_missing_capability_is_named_with_its_remedy),
        cmocka_unit_test(a_capability_without_the_needed_bits_counts_as_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
