/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "vmm/boot/boot_memory_map.h"
#include "vmm/boot/guest_boot.h"
#include "vmm/memory/guest_memory.h"

#define KERNEL_BYTES 4096u

struct fixture {
    struct guest_memory *memory;
    char kernel[64];
    char initrd[64];
};

static void write_file(char *path, const void *data, size_t len)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static int set_up(void **state)
{
    static struct fixture fixture;
    uint8_t kernel[KERNEL_BYTES] = {0};
    struct writer out;

    kernel[0x1f1] = 1;
    kernel[0x201] = 0x6a;
    memcpy(kernel + 0x202, "HdrS\x0f\x02", 6);
    kernel[0x211] = 1;
    out = writer_of(kernel + 0x22c, 4);
    writer_le32(&out, 0x7fffffff);
    kernel[0x236] = 1;
    out = writer_of(kernel + 0x238, 4);
    writer_le32(&out, 100);
    out = writer_of(kernel + 0x258, 12);
    writer_le64(&out, 0x1000000);
    writer_le32(&out, 0x100000);
    memset(kernel + 1024, 0xcc, 16);

    (void)snprintf(fixture.kernel, sizeof(fixture.kernel), "/tmp/guest-boot-test-XXXXXX");
    (void)snprintf(fixture.initrd, sizeof(fixture.initrd), "/tmp/guest-boot-test-XXXXXX");
    write_file(fixture.kernel, kernel, sizeof(kernel));
    write_file(fixture.initrd, "initrd", 6);
    ASSERT_OK(guest_memory_create(64 * MIB, 64 * MIB, &fixture.memory));
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    guest_memory_destroy(fixture->memory);
    (void)unlink(fixture->kernel);
    (void)unlink(fixture->initrd);
    return 0;
}

static uint32_t guest_u32(struct fixture *fixture, uint64_t address)
{
    uint8_t raw[4];
    assert_true(guest_read(fixture->memory, gpa(address), raw, 4));
    struct reader in = reader_of(raw, 4);
    return reader_le32(&in);
}

TEST(kernel_initrd_and_command_line_are_where_boot_params_says)
{
    struct fixture *fixture = *unused;
    struct guest_boot_config config = {fixture->kernel, fixture->initrd, "console=ttyS0", 0xe0000};
    struct boot_entry entry;
    char text[16] = {0};

    ASSERT_OK(guest_boot_load(fixture->memory, &config, &entry));

    assert_int_equal(entry.address, 0x1000200);
    assert_int_equal(entry.argument, BOOT_PARAMS_ADDRESS);
    assert_int_equal(guest_u32(fixture, 0x1000000), 0xcccccccc);
    uint32_t initrd = guest_u32(fixture, BOOT_PARAMS_ADDRESS + 0x218);
    assert_int_equal(guest_u32(fixture, BOOT_PARAMS_ADDRESS + 0x21c), 6);
    assert_true(guest_read(fixture->memory, gpa(initrd), text, 6));
    assert_string_equal(text, "initrd");
    uint32_t line = guest_u32(fixture, BOOT_PARAMS_ADDRESS + 0x228);
    assert_true(guest_read(fixture->memory, gpa(line), text, 14));
    assert_string_equal(text, "console=ttyS0");
    assert_int_equal(guest_u32(fixture, BOOT_PARAMS_ADDRESS + 0x70), 0xe0000);
}

TEST(all_ram_above_the_first_mib_is_in_the_map)
{
    struct guest_memory *memory = NULL;
    struct boot_range ranges[BOOT_RANGES_MAX];

    ASSERT_OK(guest_memory_create(20 * MIB, 16 * MIB, &memory));
    size_t count = boot_memory_map(memory, ranges);

    assert_int_equal(ranges[count - 2].start, MIB);
    assert_int_equal(ranges[count - 2].bytes, 15 * MIB);
    assert_int_equal(ranges[count - 1].start, 4 * GIB);
    assert_int_equal(ranges[count - 1].bytes, 4 * MIB);
    guest_memory_destroy(memory);
}

TEST(what_does_not_fit_is_refused)
{
    struct fixture *fixture = *unused;
    struct guest_boot_config config = {fixture->kernel, NULL, "", 0};
    struct guest_memory *small = NULL;
    struct boot_entry entry;
    char line[200];

    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = '\0';
    config.command_line = line;
    assert_fails(guest_boot_load(fixture->memory, &config, &entry), ERR_INVALID);

    config.command_line = "";
    ASSERT_OK(guest_memory_create(8 * MIB, 8 * MIB, &small));
    assert_fails(guest_boot_load(small, &config, &entry), ERR_INVALID);
    guest_memory_destroy(small);
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(kernel_initrd_and_command_line_are_where_boot_params_says),
        CASE(all_ram_above_the_first_mib_is_in_the_map),
        CASE(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
