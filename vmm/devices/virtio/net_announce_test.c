/* SPDX-License-Identifier: Apache-2.0 */
/* net_announce_test.c - the bytes of the broadcast. */
#include "base/unit_test.h"
#include "vmm/devices/virtio/net_announce.h"

TEST(the_frame_is_a_reverse_request_of_the_card_for_itself)
{
    const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};
    const uint8_t expected[42] = {
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0,    1,    2, 3, 0x80, 0x35,
        0,    1,    8,    0,    6,    4,    0,    3,    0x52, 0x54, 0, 1, 2,    3,
        0,    0,    0,    0,    0x52, 0x54, 0,    1,    2,    3,    0, 0, 0,    0,
    };
    uint8_t frame[NET_ANNOUNCE_BYTES];

    net_announce_frame(mac, frame);

    assert_memory_equal(frame, expected, sizeof(expected));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_frame_is_a_reverse_request_of_the_card_for_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
