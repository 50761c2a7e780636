/* SPDX-License-Identifier: Apache-2.0 */
/*
 * section_test.c - what goes into a list comes out of it, and nothing else gets in.
 */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "proto/control.pb-c.h"
#include "proto/section.h"

static void add_counter(struct section_list *list, const char *name, uint32_t instance)
{
    Ferry__Counter counter = FERRY__COUNTER__INIT;
    counter.name = (char *)name;
    counter.value = 1000 + instance;
    ASSERT_OK(section_list_add(list, name, instance, 3, &counter.base));
}

static struct section_list *sample_list(void)
{
    struct section_list *list;
    ASSERT_OK(section_list_create(&list));
    add_counter(list, "virtio-blk", 0);
    add_counter(list, "virtio-blk", 1);
    add_counter(list, "rtc", 0);
    return list;
}

TEST(sections_survive_a_round_trip_through_the_message)
{
    struct section_list *list = sample_list();
    struct section_list *copy;

    ASSERT_OK(section_list_from_message(section_list_message(list), &copy));

    const Ferry__Section *section = section_list_find(copy, "virtio-blk", 1);
    assert_non_null(section);
    assert_int_equal(section->version, 3);
    ProtobufCMessage *message;
    ASSERT_OK(section_unpack(section, &ferry__counter__descriptor, &message));
    assert_int_equal(((Ferry__Counter *)message)->value, 1001);
    protobuf_c_message_free_unpacked(message, NULL);
    assert_null(section_list_find(copy, "virtio-blk", 2));
    assert_null(section_list_find(copy, "virtio-net", 0));
    section_list_destroy(copy);
    section_list_destroy(list);
}

TEST(many_sections_fit_and_one_too_many_does_not)
{
    struct section_list *list;
    ASSERT_OK(section_list_create(&list));
    for (uint32_t i = 0; i < STATE_SECTIONS_MAX; i++)
        add_counter(list, "x", i);

    Ferry__Counter counter = FERRY__COUNTER__INIT;
    assert_fails(section_list_add(list, "y", 0, 1, &counter.base), ERR_INVALID);
    section_list_destroy(list);
}

TEST(the_same_section_twice_is_refused)
{
    struct section_list *list = sample_list();

    Ferry__Counter counter = FERRY__COUNTER__INIT;
    assert_fails(section_list_add(list, "rtc", 0, 1, &counter.base), ERR_INVALID);
    section_list_destroy(list);
}

TEST(a_changed_body_is_found_by_its_checksum)
{
    struct section_list *list = sample_list();
    const Ferry__MachineState *message = section_list_message(list);
    message->sections[1]->body.data[0] ^= 1;

    struct section_list *copy;
    struct err *err = section_list_from_message(message, &copy);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "virtio-blk"));
    assert_fails(err, ERR_INVALID);
    section_list_destroy(list);
}

TEST(names_that_could_not_be_shown_are_refused)
{
    static const char *const names[] = {"", "UPPER", "new\nline", "a b"};
    struct section_list *list;
    ASSERT_OK(section_list_create(&list));

    Ferry__Counter counter = FERRY__COUNTER__INIT;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_fails(section_list_add(list, names[i], 0, 1, &counter.base), ERR_INVALID);
    section_list_destroy(list);
}

TEST(a_body_that_is_too_large_is_refused)
{
    struct section_list *list = sample_list();
    Ferry__Section huge = FERRY__SECTION__INIT;
    huge.name = (char *)"huge";
    huge.body.len = STATE_SECTION_BYTES_MAX + 1;
    huge.body.data = calloc(1, huge.body.len);
    Ferry__Section *sections[] = {&huge};
    Ferry__MachineState message = FERRY__MACHINE_STATE__INIT;
    message.n_sections = 1;
    message.sections = sections;

    struct section_list *copy;
    assert_fails(section_list_from_message(&message, &copy), ERR_INVALID);
    free(huge.body.data);
    section_list_destroy(list);
}

TEST(content_that_is_no_message_names_the_section)
{
    Ferry__Section section = FERRY__SECTION__INIT;
    uint8_t garbage[] = {0xff, 0xff, 0xff};
    section.name = (char *)"rtc";
    section.body.data = garbage;
    section.body.len = sizeof(garbage);

    ProtobufCMessage *message;
    struct err *err = section_unpack(&section, &ferry__counter__descriptor, &message);
    assert_non_null(err);
    assert_non_null(strstr(err_message(err), "section 'rtc' 0"));
    assert_fails(err, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_survive_a_round_trip_through_the_message),
        cmocka_unit_test(many_sections_fit_and_one_too_many_does_not),
        cmocka_unit_test(the_same_section_twice_is_refused),
        cmocka_unit_test(a_changed_body_is_found_by_its_checksum),
        cmocka_unit_test(names_that_could_not_be_shown_are_refused),
        cmocka_unit_test(a_body_that_is_too_large_is_refused),
        cmocka_unit_test(content_that_is_no_message_names_the_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
