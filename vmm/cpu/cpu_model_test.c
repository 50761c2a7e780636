/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "vmm/cpu/cpu_model.h"

/* Of leaf 1: SSE4.2 and AES are bits 20 and 25 of ECX, AVX is bit 28, performance monitoring 15. */
#define SSE42 (1u << 20)
#define AES   (1u << 25)
#define AVX   (1u << 28)

static size_t row_of(uint32_t function, uint32_t index, enum cpuid_register reg)
{
    size_t i = 0;

    while (cpuid_feature_rows[i].function != function || cpuid_feature_rows[i].index != index ||
           cpuid_feature_rows[i].reg != reg)
        i++;
    return i;
}

static struct cpu_model parse(const char *text)
{
    struct cpu_model model;

    ASSERT_OK(cpu_model_parse(text, strlen(text), &model));
    return model;
}

static void assert_refused(const char *text, const char *why)
{
    struct cpu_model model;
    struct err *err = cpu_model_parse(text, strlen(text), &model);

    assert_non_null(err);
    if (strstr(err_message(err), why) == NULL)
        fail_msg("'%s' does not say '%s'", err_message(err), why);
    err_free(err);
}

TEST(a_file_that_names_only_its_base_is_that_model)
{
    struct cpu_model named;
    struct cpu_model from_file = parse("# row 3\n\nbase x86-64-v2\n");

    ASSERT_OK(cpu_model_load("x86-64-v2", &named));

    assert_memory_equal(&named, &from_file, sizeof(named));
}

TEST(what_is_added_is_shown_and_required)
{
    size_t ecx = row_of(0x1, 0, CPUID_ECX);
    struct cpu_model model = parse("base x86-64-v2\n+avx\n+aes");

    assert_int_equal(model.shown[ecx] & (SSE42 | AVX | AES), SSE42 | AVX | AES);
    assert_int_equal(model.required[ecx] & (SSE42 | AVX | AES), SSE42 | AVX | AES);
}

TEST(what_is_taken_away_is_gone_from_all_registers_and_not_required)
{
    size_t ecx = row_of(0x1, 0, CPUID_ECX);
    size_t components = row_of(0xd, 0, CPUID_EAX);
    struct cpu_model model = parse("base x86-64-v3\n-avx\n");

    assert_int_equal(model.shown[ecx] & (SSE42 | AVX), SSE42);
    assert_int_equal(model.required[ecx] & (SSE42 | AVX), SSE42);
    assert_int_equal(model.shown[components] & 4, 0);
    assert_int_equal(model.required[components] & 4, 0);
}

TEST(nothing_is_required_of_a_host_that_sets_the_measure_itself)
{
    size_t ecx = row_of(0x1, 0, CPUID_ECX);
    struct cpu_model model = parse("base host\n-sse4.2\n");

    for (size_t i = 0; i < cpuid_feature_row_count; i++)
        assert_int_equal(model.required[i], 0);
    assert_int_equal(model.shown[ecx], cpuid_feature_rows[ecx].offered & ~SSE42);
}

TEST(a_file_that_is_wrong_is_refused_by_line)
{
    assert_refused("", "names no base");
    assert_refused("# only words\n", "names no base");
    assert_refused("+aes\n", "line 1: a model begins with 'base");
    assert_refused("base x86-64-v2\nbase host\n", "line 2: a second base");
    assert_refused("base 486\n", "line 1: CPU model '486' is not known");
    assert_refused("base host\naes\n", "line 2: 'aes' is neither");
    assert_refused("base host\n\n+warp-drive\n", "line 3: feature 'warp-drive' is not known");
    assert_refused("base host\n+vmx\n", "line 2: feature 'vmx' is never offered");
    assert_refused("base host\n-bit 16\n", "line 2: feature 'bit 16' is not known");
    assert_refused("base host\n-\n", "line 2: feature '' is not known");
}

TEST(a_model_is_read_from_its_file)
{
    char path[] = "/tmp/cpu_model.XXXXXX";
    char name[64];
    struct cpu_model model;
    int fd = mkstemp(path);
    struct cpu_model wanted = parse("base x86-64-v2\n-aes\n");

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "base x86-64-v2\n-aes\n", 20), 20);
    assert_int_equal(close(fd), 0);
    (void)snprintf(name, sizeof(name), "file=%s", path);
    ASSERT_OK(cpu_model_load(name, &model));
    assert_memory_equal(&model, &wanted, sizeof(model));

    assert_int_equal(unlink(path), 0);
    struct err *err = cpu_model_load(name, &model);
    assert_non_null(err);
    err_free(err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_names_only_its_base_is_that_model),
        cmocka_unit_test(what_is_added_is_shown_and_required),
        cmocka_unit_test(what_is_taken_away_is_gone_from_all_registers_and_not_required),
        cmocka_unit_test(nothing_is_required_of_a_host_that_sets_the_measure_itself),
        cmocka_unit_test(a_file_that_is_wrong_is_refused_by_line),
        cmocka_unit_test(a_model_is_read_from_its_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
