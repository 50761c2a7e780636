/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_head.c - see image_head.h. Tested by: image_graph_test.c
 *
 * The fields are where all versions of the format have them, the first one included.
 */
#include "storage/image_head.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/limits.h"
#include "storage/qcow/qcow_header.h"

#define AT_HEADER_BYTES      100u
#define EXTENSION_HEAD_BYTES 8u

static bool is_zero(const uint8_t *data, size_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

/* Extensions begin behind the fields and end at the latest where the name of the backing file
 * stands. What is not found there is not said. */
static void find_format(const uint8_t *data, size_t len, uint32_t version, struct image_head *head)
{
    size_t end = (size_t)MIN((uint64_t)len, head->backing_offset);
    size_t at = QCOW_HEADER_V2_BYTES;

    if (version >= 3 && len >= AT_HEADER_BYTES + 4) {
        struct reader in = reader_of(data + AT_HEADER_BYTES, 4);
        at = reader_be32(&in);
    }
    while (at <= end && end - at >= EXTENSION_HEAD_BYTES) {
        struct reader in = reader_of(data + at, EXTENSION_HEAD_BYTES);
        uint32_t type = reader_be32(&in), bytes = reader_be32(&in);
        at += EXTENSION_HEAD_BYTES;
        if (type == QCOW_EXTENSION_END || bytes > end - at)
            return;
        if (type == QCOW_EXTENSION_BACKING_FORMAT && bytes < sizeof(head->backing_format)) {
            memcpy(head->backing_format, data + at, bytes);
            head->backing_format[bytes] = '\0';
            return;
        }
        at += align_up(bytes, 8);
    }
}

void image_head_parse(const void *data, size_t len, struct image_head *out_head)
{
    struct reader in = reader_of(data, len);
    struct image_head head = {.kind = IMAGE_HEAD_QCOW};

    *out_head = (struct image_head){.kind = IMAGE_HEAD_OTHER};
    if (is_zero(data, len))
        out_head->kind = IMAGE_HEAD_BLANK;
    if (reader_be32(&in) != QCOW_MAGIC)
        return;

    uint32_t version = reader_be32(&in);
    head.backing_offset = reader_be64(&in);
    head.backing_bytes = reader_be32(&in);
    if (!reader_ok(&in) || head.backing_bytes >= sizeof(head.backing_name) ||
        head.backing_offset > (uint64_t)1 << QCOW_CLUSTER_BITS_MAX) {
        out_head->kind = IMAGE_HEAD_BROKEN;
        return;
    }
    if (head.backing_bytes == 0)
        head.backing_offset = 0;
    if (head.backing_offset != 0)
        find_format(data, len, version, &head);
    *out_head = head;
}

/* -1: `errno` says why; fewer than asked for: the file is shorter. */
static ssize_t read_up_to(int fd, uint8_t *data, size_t len, uint64_t offset)
{
    size_t done = 0;

    while (done < len) {
        ssize_t got = pread(fd, data + done, len - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

struct err *image_head_read(int fd, const char *path, struct image_head *out_head)
{
    uint8_t data[IMAGE_HEAD_BYTES];
    struct image_head head;

    ssize_t len = read_up_to(fd, data, sizeof(data), 0);
    if (len < 0)
        return err_errno(errno, "read '%s'", path);
    image_head_parse(data, (size_t)len, &head);
    if (head.backing_offset != 0) {
        len = read_up_to(fd, (uint8_t *)head.backing_name, head.backing_bytes, head.backing_offset);
        if (len < 0)
            return err_errno(errno, "read '%s'", path);
        head.backing_name[head.backing_bytes] = '\0';
        if ((size_t)len != head.backing_bytes || strlen(head.backing_name) != head.backing_bytes)
            head = (struct image_head){.kind = IMAGE_HEAD_BROKEN};
    }
    *out_head = head;
    return NULL;
}
