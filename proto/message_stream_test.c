/* SPDX-License-Identifier: Apache-2.0 */
/*
 * message_stream_test.c - framing and its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "proto/control.pb-c.h"
#include "proto/message_stream.h"

static const ProtobufCMessageDescriptor *const hello_type = &ferry__control_hello__descriptor;

static size_t pack_hello(uint32_t protocol, uint8_t **out_data)
{
    Ferry__ControlHello hello = FERRY__CONTROL_HELLO__INIT;
    size_t len = 0;

    hello.protocol = protocol;
    hello.program = (char *)"test";
    ASSERT_OK(message_pack(&hello.base, KIB, out_data, &len));
    return len;
}

TEST(messages_come_back_in_order_and_the_end_is_told)
{
    uint8_t *first, *second, stream[128];
    size_t first_len = pack_hello(1, &first);
    size_t second_len = pack_hello(300, &second);
    memcpy(stream, first, first_len);
    memcpy(stream + first_len, second, second_len);
    free(first);
    free(second);

    struct reader in = reader_of(stream, first_len + second_len);
    for (uint32_t i = 0; i < 2; i++) {
        ProtobufCMessage *message;
        ASSERT_OK(message_next(&in, hello_type, KIB, &message));
        const Ferry__ControlHello *hello = (const Ferry__ControlHello *)message;
        assert_int_equal(hello->protocol, i == 0 ? 1 : 300);
        assert_string_equal(hello->program, "test");
        protobuf_c_message_free_unpacked(message, NULL);
    }
    ProtobufCMessage *end;
    ASSERT_OK(message_next(&in, hello_type, KIB, &end));
    assert_null(end);
}

TEST(a_truncated_message_is_refused_at_every_length)
{
    uint8_t *data;
    size_t len = pack_hello(1, &data);

    for (size_t cut = 1; cut < len; cut++) {
        struct reader in = reader_of(data, cut);
        ProtobufCMessage *message;
        assert_fails(message_next(&in, hello_type, KIB, &message), ERR_INVALID);
    }
    free(data);
}

TEST(a_span_is_incomplete_until_its_last_byte)
{
    uint8_t *data;
    size_t len = pack_hello(1, &data);

    for (size_t have = 0; have <= len; have++) {
        struct message_span span;
        ASSERT_OK(message_span_find(data, have, KIB, &span));
        assert_int_equal(span.is_complete, have == len);
        assert_int_equal(span.head_bytes, have == 0 ? 0 : 1);
    }
    free(data);
}

TEST(a_length_beyond_the_bound_is_refused_before_its_body_arrives)
{
    uint8_t data[16];
    struct writer out = writer_of(data, sizeof(data));
    writer_varint(&out, KIB + 1);

    struct message_span span;
    assert_fails(message_span_find(data, (size_t)(out.at - data), KIB, &span), ERR_INVALID);
}

TEST(a_length_that_never_ends_is_refused)
{
    uint8_t data[16];
    memset(data, 0x80, sizeof(data));

    struct message_span span;
    assert_fails(message_span_find(data, sizeof(data), KIB, &span), ERR_INVALID);
}

TEST(a_message_that_is_too_long_is_not_packed)
{
    char program[100];
    memset(program, 'x', sizeof(program) - 1);
    program[sizeof(program) - 1] = 0;
    Ferry__ControlHello hello = FERRY__CONTROL_HELLO__INIT;
    hello.program = program;

    uint8_t *data;
    size_t len;
    assert_fails(message_pack(&hello.base, 64, &data, &len), ERR_INVALID);
}

TEST(bytes_that_unpack_to_far_more_memory_are_refused)
{
    size_t len = 2 * MIB;
    uint8_t *data = malloc(len);
    assert_non_null(data);
    for (size_t i = 0; i < len; i += 2) { /* a million empty sections */
        data[i] = 0x0a;
        data[i + 1] = 0;
    }

    ProtobufCMessage *message;
    assert_fails(message_unpack(&ferry__machine_state__descriptor, data, len, &message),
                 ERR_INVALID);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_back_in_order_and_the_end_is_told),
        cmocka_unit_test(a_truncated_message_is_refused_at_every_length),
        cmocka_unit_test(a_span_is_incomplete_until_its_last_byte),
        cmocka_unit_test(a_length_beyond_the_bound_is_refused_before_its_body_arrives),
        cmocka_unit_test(a_length_that_never_ends_is_refused),
        cmocka_unit_test(a_message_that_is_too_long_is_not_packed),
        cmocka_unit_test(bytes_that_unpack_to_far_more_memory_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
