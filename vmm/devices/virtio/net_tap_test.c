/* SPDX-License-Identifier: Apache-2.0 */
/* net_tap_test.c - what is accepted as a tap. One test needs the right to make one. */
#include <sys/socket.h>
#include <unistd.h>

#include "base/unit_test.h"
#include "vmm/devices/virtio/net_tap.h"

TEST(a_name_that_is_none_is_refused)
{
    struct net_tap tap;

    assert_fails(net_tap_open("", &tap), ERR_INVALID);
    assert_fails(net_tap_open("a-name-that-is-too-long", &tap), ERR_INVALID);
}

TEST(a_descriptor_that_is_no_tap_is_refused)
{
    struct net_tap tap;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);

    struct err *err = net_tap_adopt(fds[0], &tap);

    assert_non_null(err);
    err_free(err);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

TEST(a_tap_is_opened_and_adopted_with_its_offloads)
{
    struct net_tap tap;
    struct net_tap adopted;
    struct err *err = net_tap_open("ferrytest0", &tap);
    if (err != NULL) {
        print_message("no tap interface can be made here: %s\n", err_message(err));
        err_free(err);
        skip();
    }

    ASSERT_OK(net_tap_adopt(tap.fd, &adopted));

    assert_int_equal(adopted.fd, tap.fd);
    assert_true(adopted.has_offload);
    ASSERT_OK(net_tap_set_offload(&adopted, NET_OFFLOAD_CHECKSUM | NET_OFFLOAD_TSO4));
    ASSERT_OK(net_tap_set_offload(&adopted, 0));
    (void)close(tap.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_that_is_none_is_refused),
        cmocka_unit_test(a_descriptor_that_is_no_tap_is_refused),
        cmocka_unit_test(a_tap_is_opened_and_adopted_with_its_offloads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
