/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/unit_test.h"

TEST(numbers_come_back_as_they_went_in)
{
    uint8_t buffer[64];
    struct writer out = writer_of(buffer, sizeof(buffer));
    writer_u8(&out, 0xab);
    writer_be16(&out, 0x1234);
    writer_be32(&out, 0x12345678);
    writer_be64(&out, 0x123456789abcdef0);
    writer_le16(&out, 0x1234);
    writer_le32(&out, 0x12345678);
    writer_le64(&out, 0x123456789abcdef0);
    assert_true(writer_ok(&out));

    struct reader in = reader_of(buffer, sizeof(buffer) - writer_left(&out));

    assert_int_equal(reader_u8(&in), 0xab);
    assert_int_equal(reader_be16(&in), 0x1234);
    assert_int_equal(reader_be32(&in), 0x12345678);
    assert_int_equal(reader_be64(&in), 0x123456789abcdef0);
    assert_int_equal(reader_le16(&in), 0x1234);
    assert_int_equal(reader_le32(&in), 0x12345678);
    assert_int_equal(reader_le64(&in), 0x123456789abcdef0);
    assert_true(reader_ok(&in));
    assert_int_equal(reader_left(&in), 0);
}

TEST(the_byte_order_is_that_of_the_name)
{
    uint8_t buffer[8];
    struct writer out = writer_of(buffer, sizeof(buffer));

    writer_be32(&out, 0x01020304);
    writer_le32(&out, 0x01020304);

    assert_memory_equal(buffer, ((uint8_t[]){1, 2, 3, 4, 4, 3, 2, 1}), 8);
}

TEST(a_short_read_fails_and_every_later_one_too)
{
    struct reader in = reader_of("\x01\x02\x03", 3);

    assert_int_equal(reader_be32(&in), 0);
    assert_false(reader_ok(&in));
    assert_int_equal(reader_u8(&in), 0);
    assert_null(reader_take(&in, 0));
    assert_int_equal(reader_varint(&in), 0);
}

TEST(a_full_writer_fails_and_writes_nothing_more)
{
    uint8_t buffer[4] = {9, 9, 9, 9};
    struct writer out = writer_of(buffer, 3);

    writer_le32(&out, 0);
    writer_u8(&out, 0);

    assert_false(writer_ok(&out));
    assert_int_equal(buffer[3], 9);
}

TEST(no_bytes_at_all_may_be_a_null_pointer)
{
    uint8_t buffer[1];
    struct reader in = reader_of(NULL, 0);
    struct writer out = writer_of(buffer, 0);

    assert_non_null(reader_take(&in, 0));
    reader_skip(&in, 0);
    writer_bytes(&out, NULL, 0);

    assert_true(reader_ok(&in));
    assert_true(writer_ok(&out));
    assert_int_equal(reader_left(&in), 0);
}

TEST(varints_of_every_length_come_back)
{
    const uint64_t values[] = {0, 1, 127, 128, 300, UINT32_MAX, (uint64_t)1 << 63, UINT64_MAX};

    for (size_t i = 0; i < ARRAY_COUNT(values); i++) {
        uint8_t buffer[10];
        struct writer out = writer_of(buffer, sizeof(buffer));
        writer_varint(&out, values[i]);
        assert_true(writer_ok(&out));

        struct reader in = reader_of(buffer, sizeof(buffer) - writer_left(&out));

        assert_int_equal(reader_varint(&in), values[i]);
        assert_true(reader_ok(&in));
        assert_int_equal(reader_left(&in), 0);
    }
}

TEST(a_varint_of_more_than_64_bits_is_refused)
{
    static const uint8_t eleven[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                     0x80, 0x80, 0x80, 0x80, 0x00};
    static const uint8_t two_to_the_64[] = {0x80, 0x80, 0x80, 0x80, 0x80,
                                            0x80, 0x80, 0x80, 0x80, 0x02};
    struct reader too_long = reader_of(eleven, sizeof(eleven));
    struct reader too_big = reader_of(two_to_the_64, sizeof(two_to_the_64));

    assert_int_equal(reader_varint(&too_long), 0);
    assert_int_equal(reader_varint(&too_big), 0);

    assert_false(reader_ok(&too_long));
    assert_false(reader_ok(&too_big));
}

TEST(a_varint_cut_short_is_refused)
{
    struct reader in = reader_of("\xff\xff", 2);

    assert_int_equal(reader_varint(&in), 0);
    assert_false(reader_ok(&in));
}

TEST(taken_bytes_are_lent_where_they_stand)
{
    const char text[] = "header and body";
    struct reader in = reader_of(text, sizeof(text));

    reader_skip(&in, 7);

    assert_ptr_equal(reader_take(&in, 3), text + 7);
    assert_int_equal(reader_left(&in), sizeof(text) - 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_come_back_as_they_went_in),
        cmocka_unit_test(the_byte_order_is_that_of_the_name),
        cmocka_unit_test(a_short_read_fails_and_every_later_one_too),
        cmocka_unit_test(a_full_writer_fails_and_writes_nothing_more),
        cmocka_unit_test(no_bytes_at_all_may_be_a_null_pointer),
        cmocka_unit_test(varints_of_every_length_come_back),
        cmocka_unit_test(a_varint_of_more_than_64_bits_is_refused),
        cmocka_unit_test(a_varint_cut_short_is_refused),
        cmocka_unit_test(taken_bytes_are_lent_where_they_stand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
