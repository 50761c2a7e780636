/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unit_test.h"
#include "proto/frame.h"

static const struct frame_limits limits = {.body_bytes_max = MIGRATION_FRAME_HEAD_MAX,
                                           .payload_bytes_max = MIGRATION_BATCH_BYTES_MAX};

/* A pages frame of one raw page, payload included; returns its length. */
static size_t sample(uint8_t *buffer, size_t size)
{
    static const uint8_t page[PAGE_BYTES] = {'f', 'e', 'r', 'r', 'y'};
    Ferry__PageRun run = FERRY__PAGE_RUN__INIT;
    Ferry__PageRun *runs[] = {&run};
    Ferry__MigrationPages pages = FERRY__MIGRATION_PAGES__INIT;
    Ferry__MigrationFrame frame;
    struct writer out = writer_of(buffer, size);

    run.first = 1234;
    run.count = 1;
    run.kind = FERRY__PAGE_KIND__PAGE_RAW;
    pages.checksum = 42;
    pages.runs = runs;
    pages.n_runs = 1;
    FRAME_BODY(&frame, PAGES, pages, &pages);
    ASSERT_OK(frame_pack_head(&frame, sizeof(page), &out));
    writer_bytes(&out, page, sizeof(page));
    assert_true(writer_ok(&out));
    return (size_t)(out.at - buffer);
}

TEST(a_head_is_found_however_it_arrives)
{
    uint8_t buffer[PAGE_BYTES + 256];
    size_t len = sample(buffer, sizeof(buffer));
    size_t have = 0;
    size_t more = 1;
    struct frame_head head;

    while (more > 0) {
        ASSERT_OK(frame_scan(buffer, have, limits, &head, &more));
        have += more;
        assert_true(have <= len - PAGE_BYTES);
    }

    assert_int_equal(head.payload_bytes, PAGE_BYTES);
    assert_int_equal(head.head_bytes, len - PAGE_BYTES);
    Ferry__MigrationFrame *frame = NULL;
    ASSERT_OK(frame_unpack(buffer, &head, &frame));
    assert_int_equal(frame->body_case, FERRY__MIGRATION_FRAME__BODY_PAGES);
    assert_int_equal(frame->pages->runs[0]->first, 1234);
    ferry__migration_frame__free_unpacked(frame, NULL);
}

TEST(lengths_above_the_limits_are_refused_before_anything_is_read)
{
    uint8_t buffer[PAGE_BYTES + 256];
    size_t len = sample(buffer, sizeof(buffer));
    struct frame_limits small_payload = {.body_bytes_max = 1000, .payload_bytes_max = 4095};
    struct frame_limits small_body = {.body_bytes_max = 3, .payload_bytes_max = 5000};
    struct frame_head head;
    size_t more = 0;

    assert_fails(frame_scan(buffer, len, small_payload, &head, &more), ERR_INVALID);
    assert_fails(frame_scan(buffer, 8, small_body, &head, &more), ERR_INVALID);
}

TEST(other_bytes_are_no_frame)
{
    struct frame_head head;
    size_t more = 0;

    assert_fails(frame_scan((const uint8_t *)"GET / HTTP/1.1", 14, limits, &head, &more),
                 ERR_INVALID);
}

TEST(a_frame_that_says_less_than_it_holds_is_refused)
{
    uint8_t buffer[PAGE_BYTES + 256];
    size_t len = sample(buffer, sizeof(buffer));
    struct frame_head head;
    size_t more = 0;

    buffer[1] ^= 1; /* the frame's length */

    assert_fails(frame_scan(buffer, len, limits, &head, &more), ERR_INVALID);
}

TEST(a_body_that_is_no_message_is_refused)
{
    /* A welcome whose route claims more bytes than the body has. */
    const uint8_t bytes[] = {0x0a, 0x05, 0x12, 0x03, 0x12, 0x7f, 0x00};
    struct frame_head head;
    size_t more = 0;
    Ferry__MigrationFrame *frame = NULL;

    ASSERT_OK(frame_scan(bytes, sizeof(bytes), limits, &head, &more));

    assert_fails(frame_unpack(bytes, &head, &frame), ERR_INVALID);
}

/* What stock protoc makes of a stream of two frames, or NULL when there is no protoc. */
static char *decode_with_protoc(const uint8_t *stream, size_t len)
{
    char path[] = "/tmp/frame_test.XXXXXX";
    int fd = mkstemp(path);
    char command[512];
    static char text[64u * KIB];

    assert_true(fd >= 0);
    assert_int_equal(write(fd, stream, len), len);
    close(fd);
    (void)snprintf(command, sizeof(command),
                   "protoc --proto_path=%s --decode=ferry.MigrationStream migration.proto < %s",
                   PROTO_FOLDER, path);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    text[fread(text, 1, sizeof(text) - 1, pipe)] = '\0';
    int status = pclose(pipe);
    (void)unlink(path);
    return status == 0 ? text : NULL;
}

TEST(stock_protoc_decodes_a_captured_stream)
{
    static uint8_t stream[2 * (PAGE_BYTES + 256)];

    if (system("protoc --version > /dev/null 2>&1") != 0)
        skip();
    size_t len = sample(stream, sizeof(stream));
    len += sample(stream + len, sizeof(stream) - len);

    const char *text = decode_with_protoc(stream, len);

    assert_non_null(text);
    const char *first = strstr(text, "first: 1234");
    assert_non_null(first);
    assert_non_null(strstr(first + 1, "first: 1234"));
    assert_non_null(strstr(text, "kind: PAGE_RAW"));
    assert_non_null(strstr(text, "payload: \"ferry"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_is_found_however_it_arrives),
        cmocka_unit_test(lengths_above_the_limits_are_refused_before_anything_is_read),
        cmocka_unit_test(other_bytes_are_no_frame),
        cmocka_unit_test(a_frame_that_says_less_than_it_holds_is_refused),
        cmocka_unit_test(a_body_that_is_no_message_is_refused),
        cmocka_unit_test(stock_protoc_decodes_a_captured_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
