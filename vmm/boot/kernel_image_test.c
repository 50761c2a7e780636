/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <string.h>

#include "base/bytes.h"
#include "base/unit_test.h"
#include "vmm/boot/kernel_image.h"

#define FILE_BYTES 8192u

static void put16(uint8_t *file, size_t at, uint16_t value)
{
    struct writer out = writer_of(file + at, 2);
    writer_le16(&out, value);
}

static void put32(uint8_t *file, size_t at, uint32_t value)
{
    struct writer out = writer_of(file + at, 4);
    writer_le32(&out, value);
}

static void put64(uint8_t *file, size_t at, uint64_t value)
{
    struct writer out = writer_of(file + at, 8);
    writer_le64(&out, value);
}

/* Protocol 2.15, three setup sectors, 64-bit entry. */
static void make_bzimage(uint8_t *file)
{
    memset(file, 0, FILE_BYTES);
    file[0x1f1] = 3;
    file[0x201] = 0x6a;
    memcpy(file + 0x202, "HdrS", 4);
    put16(file, 0x206, 0x020f);
    file[0x211] = 1;
    put32(file, 0x22c, 0x7fffffff);
    put16(file, 0x236, 1);
    put32(file, 0x238, 2047);
    put64(file, 0x258, 0x1000000);
    put32(file, 0x260, 0x800000);
}

/* One segment of 100 bytes at 1 MiB with 1000 bytes of memory, and a note with entry 0x100010. */
static void make_elf(uint8_t *file)
{
    memset(file, 0, FILE_BYTES);
    memcpy(file, "\177ELF\2\1\1", 7);
    put16(file, 16, ET_EXEC);
    put16(file, 18, EM_X86_64);
    put64(file, 32, 64);
    put16(file, 54, sizeof(Elf64_Phdr));
    put16(file, 56, 2);

    put32(file, 64, PT_LOAD);
    put64(file, 64 + 8, 4096);
    put64(file, 64 + 24, 0x100000);
    put64(file, 64 + 32, 100);
    put64(file, 64 + 40, 1000);

    put32(file, 120, PT_NOTE);
    put64(file, 120 + 8, 1024);
    put64(file, 120 + 32, 20);
    put32(file, 1024, 4);
    put32(file, 1028, 4);
    put32(file, 1032, 18);
    memcpy(file + 1036, "Xen", 4);
    put32(file, 1040, 0x100010);
}

TEST(a_bzimage_is_loaded_where_it_prefers_and_entered_at_its_64_bit_entry)
{
    uint8_t file[FILE_BYTES];
    struct kernel_image image;

    make_bzimage(file);
    ASSERT_OK(kernel_image_parse(file, sizeof(file), &image));

    assert_int_equal(image.protocol, KERNEL_LINUX64);
    assert_int_equal(image.entry, 0x1000200);
    assert_int_equal(image.segment_count, 1);
    assert_int_equal(image.segments[0].file_offset, 2048);
    assert_int_equal(image.segments[0].file_bytes, FILE_BYTES - 2048);
    assert_int_equal(image.segments[0].memory_bytes, 0x800000);
    assert_int_equal(image.setup_bytes, 0x202 + 0x6a - 0x1f1);
}

TEST(bzimages_that_can_not_be_booted_are_refused_with_the_reason)
{
    uint8_t file[FILE_BYTES];
    struct kernel_image image;

    make_bzimage(file);
    put16(file, 0x206, 0x0208);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    make_bzimage(file);
    put16(file, 0x236, 0);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    make_bzimage(file);
    file[0x211] = 0;
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    make_bzimage(file);
    put64(file, 0x258, UINT64_MAX);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INVALID);
    make_bzimage(file);
    file[0x1f1] = 200;
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INVALID);
}

TEST(an_elf_file_is_entered_where_its_note_says)
{
    uint8_t file[FILE_BYTES];
    struct kernel_image image;

    make_elf(file);
    ASSERT_OK(kernel_image_parse(file, sizeof(file), &image));

    assert_int_equal(image.protocol, KERNEL_PVH);
    assert_int_equal(image.entry, 0x100010);
    assert_int_equal(image.segments[0].address, 0x100000);
    assert_int_equal(image.segments[0].file_bytes, 100);
    assert_int_equal(image.segments[0].memory_bytes, 1000);
}

TEST(elf_files_that_can_not_be_booted_are_refused_with_the_reason)
{
    uint8_t file[FILE_BYTES];
    struct kernel_image image;

    make_elf(file);
    put32(file, 1032, 1);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    make_elf(file);
    put64(file, 64 + 24, 0x1000);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    make_elf(file);
    put64(file, 64 + 8, UINT64_MAX);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INVALID);
    make_elf(file);
    put64(file, 64 + 40, 10);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INVALID);
    make_elf(file);
    put16(file, 18, EM_AARCH64);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    make_elf(file);
    put16(file, 56, 0);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INVALID);
}

TEST(a_note_that_claims_to_be_huge_is_not_followed)
{
    uint8_t file[FILE_BYTES];
    struct kernel_image image;

    make_elf(file);
    put32(file, 1024, UINT32_MAX);
    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
}

TEST(a_file_cut_at_any_length_is_refused_or_stays_within_itself)
{
    uint8_t file[FILE_BYTES];
    struct kernel_image image;

    for (int kind = 0; kind < 2; kind++) {
        (kind == 0 ? make_bzimage : make_elf)(file);
        for (size_t len = 0; len < 4200; len += 7) {
            struct err *err = kernel_image_parse(file, len, &image);
            for (size_t i = 0; err == NULL && i < image.segment_count; i++)
                assert_true(image.segments[i].file_offset + image.segments[i].file_bytes <= len);
            err_free(err);
        }
    }
}

TEST(anything_else_is_refused)
{
    uint8_t file[1024] = {0x1f, 0x8b};
    struct kernel_image image;

    assert_fails(kernel_image_parse(file, sizeof(file), &image), ERR_INCOMPATIBLE);
    assert_fails(kernel_image_parse((const uint8_t *)"#!/bin/sh", 9, &image), ERR_INCOMPATIBLE);
    assert_fails(kernel_image_parse(file, 0, &image), ERR_INCOMPATIBLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bzimage_is_loaded_where_it_prefers_and_entered_at_its_64_bit_entry),
        cmocka_unit_test(bzimages_that_can_not_be_booted_are_refused_with_the_reason),
        cmocka_unit_test(an_elf_file_is_entered_where_its_note_says),
        cmocka_unit_test(elf_files_that_can_not_be_booted_are_refused_with_the_reason),
        cmocka_unit_test(a_note_that_claims_to_be_huge_is_not_followed),
        cmocka_unit_test(a_file_cut_at_any_length_is_refused_or_stays_within_itself),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
