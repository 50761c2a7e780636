/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_stream_test.c - messages and descriptors through a socketpair.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/unit_test.h"
#include "control/control_stream_internal.h"
#include "proto/control.pb-c.h"

struct pair {
    struct control_stream a, b;
};

static void pair_open(struct pair *pair)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    control_stream_init(&pair->a, ends[0]);
    control_stream_init(&pair->b, ends[1]);
}

static void pair_close(struct pair *pair)
{
    control_stream_finish(&pair->a);
    control_stream_finish(&pair->b);
}

static void put(struct control_stream *stream, uint64_t id, const int *fds, size_t fd_count)
{
    Ferry__ControlRequest request = FERRY__CONTROL_REQUEST__INIT;
    request.id = id;
    request.fd_count = (uint32_t)fd_count;
    ASSERT_OK(control_stream_put(stream, &request.base, fds, fd_count));
}

static Ferry__ControlRequest *next(struct control_stream *stream)
{
    ProtobufCMessage *message;
    ASSERT_OK(control_stream_next(stream, &ferry__control_request__descriptor, &message));
    return (Ferry__ControlRequest *)message;
}

static bool is_same_file(int a, int b)
{
    struct stat a_status, b_status;
    assert_int_equal(fstat(a, &a_status), 0);
    assert_int_equal(fstat(b, &b_status), 0);
    return a_status.st_ino == b_status.st_ino && a_status.st_dev == b_status.st_dev;
}

TEST(descriptors_arrive_with_the_message_that_names_them)
{
    struct pair pair;
    pair_open(&pair);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    put(&pair.a, 1, NULL, 0);
    ASSERT_OK(control_stream_flush(&pair.a));
    put(&pair.a, 2, (int[]){zero}, 1);
    ASSERT_OK(control_stream_flush(&pair.a));
    put(&pair.a, 3, (int[]){null, zero}, 2);
    ASSERT_OK(control_stream_flush(&pair.a));

    int fds[4];
    for (uint64_t id = 1; id <= 3; id++) {
        Ferry__ControlRequest *request;
        while ((request = next(&pair.b)) == NULL) {
            bool is_closed;
            ASSERT_OK(control_stream_receive(&pair.b, &is_closed));
            assert_false(is_closed);
        }
        assert_int_equal(request->id, id);
        assert_int_equal(request->fd_count, id - 1);
        ASSERT_OK(control_stream_take_fds(&pair.b, request->fd_count, fds));
        for (size_t i = 0; i < request->fd_count; i++) {
            assert_true(is_same_file(fds[i], id == 3 && i == 0 ? null : zero));
            close(fds[i]);
        }
        ferry__control_request__free_unpacked(request, NULL);
    }
    close(zero);
    close(null);
    pair_close(&pair);
}

TEST(a_large_message_crosses_in_pieces)
{
    struct pair pair;
    pair_open(&pair);
    Ferry__ControlRequest request = FERRY__CONTROL_REQUEST__INIT;
    Ferry__ControlQuit quit = FERRY__CONTROL_QUIT__INIT;
    size_t len = 3 * MIB;
    char *reason = malloc(len + 1);
    assert_non_null(reason);
    memset(reason, 'x', len);
    reason[len] = '\0';
    quit.reason = reason;
    request.call_case = FERRY__CONTROL_REQUEST__CALL_QUIT;
    request.quit = &quit;
    ASSERT_OK(control_stream_put(&pair.a, &request.base, NULL, 0));

    Ferry__ControlRequest *got = NULL;
    unsigned stalls = 0;
    while (got == NULL) {
        bool is_closed;
        ASSERT_OK(control_stream_flush(&pair.a));
        stalls += control_stream_is_sending(&pair.a);
        ASSERT_OK(control_stream_receive(&pair.b, &is_closed));
        got = next(&pair.b);
    }

    assert_true(stalls > 0);
    assert_string_equal(got->quit->reason, reason);
    ferry__control_request__free_unpacked(got, NULL);
    free(reason);
    pair_close(&pair);
}

TEST(descriptors_without_a_message_are_refused)
{
    struct pair pair;
    pair_open(&pair);
    Ferry__ControlRequest request = FERRY__CONTROL_REQUEST__INIT;
    ASSERT_OK(control_stream_put(&pair.a, &request.base, (int[]){0}, 1)); /* fd_count says 0 */
    ASSERT_OK(control_stream_flush(&pair.a));

    bool is_closed;
    ASSERT_OK(control_stream_receive(&pair.b, &is_closed));
    ferry__control_request__free_unpacked(next(&pair.b), NULL);
    ProtobufCMessage *message;
    assert_fails(control_stream_next(&pair.b, &ferry__control_request__descriptor, &message),
                 ERR_INVALID);
    pair_close(&pair);
}

TEST(a_message_whose_descriptors_did_not_come_is_refused)
{
    struct pair pair;
    pair_open(&pair);
    put(&pair.a, 1, NULL, 0);
    ASSERT_OK(control_stream_flush(&pair.a));

    bool is_closed;
    ASSERT_OK(control_stream_receive(&pair.b, &is_closed));
    ferry__control_request__free_unpacked(next(&pair.b), NULL);
    int fds[1];
    assert_fails(control_stream_take_fds(&pair.b, 1, fds), ERR_INVALID);
    pair_close(&pair);
}

TEST(the_end_of_the_peer_is_told_after_its_last_message)
{
    struct pair pair;
    pair_open(&pair);
    put(&pair.a, 7, NULL, 0);
    ASSERT_OK(control_stream_flush(&pair.a));
    control_stream_finish(&pair.a);

    bool is_closed;
    ASSERT_OK(control_stream_receive(&pair.b, &is_closed));
    assert_false(is_closed);
    Ferry__ControlRequest *request = next(&pair.b);
    assert_int_equal(request->id, 7);
    ferry__control_request__free_unpacked(request, NULL);
    ASSERT_OK(control_stream_receive(&pair.b, &is_closed));
    assert_true(is_closed);
    control_stream_finish(&pair.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_arrive_with_the_message_that_names_them),
        cmocka_unit_test(a_large_message_crosses_in_pieces),
        cmocka_unit_test(descriptors_without_a_message_are_refused),
        cmocka_unit_test(a_message_whose_descriptors_did_not_come_is_refused),
        cmocka_unit_test(the_end_of_the_peer_is_told_after_its_last_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
