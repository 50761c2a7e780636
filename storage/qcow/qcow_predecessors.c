/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_predecessors.c - see qcow_predecessors.h. Tested by: layer_merge_test.c
 *
 * The header's fields and extensions are copied as they are, so that what other programs wrote
 * there stays; only the backing file's name moves behind the new extension.
 */
#include "storage/qcow/qcow_predecessors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/file_io.h"
#include "storage/qcow/qcow_header.h"

#define HEAD_BYTES           4096u /* of an overlay: far more than its header needs */
#define EXTENSION_TYPE       0x46724c79u
#define EXTENSION_HEAD_BYTES 8u
#define EXTENSION_BYTES_MAX  ((size_t)QCOW_PREDECESSORS_MAX * 8)
#define AT_BACKING_OFFSET    8u

struct head {
    uint8_t data[HEAD_BYTES];
    struct qcow_header header;
    size_t end;     /* where the extension that ends the list stands */
    size_t note_at; /* the data of ours; 0: there is none */
    size_t note_len;
};

static struct err *malformed(const char *path)
{
    return err_new(ERR_INVALID, "image '%s': its header extensions are malformed", path);
}

/* The list may also end with the place that there is for it. */
static struct err *find_extensions(struct head *head, const char *path)
{
    uint64_t limit = MIN((uint64_t)HEAD_BYTES, (uint64_t)1 << head->header.cluster_bits);
    size_t at = head->header.header_bytes;

    if (head->header.backing_offset != 0)
        limit = MIN(limit, head->header.backing_offset);
    while (at <= limit && limit - at >= EXTENSION_HEAD_BYTES) {
        struct reader in = reader_of(head->data + at, EXTENSION_HEAD_BYTES);
        uint32_t type = reader_be32(&in), len = reader_be32(&in);
        if (type == QCOW_EXTENSION_END) {
            head->end = at;
            return NULL;
        }
        at += EXTENSION_HEAD_BYTES;
        if (len > limit - at)
            return malformed(path);
        if (type == EXTENSION_TYPE) {
            head->note_at = at;
            head->note_len = len;
        }
        at += align_up(len, 8);
    }
    return NULL;
}

static struct err *read_head(int fd, const char *path, struct head *out_head)
{
    ssize_t len = pread(fd, out_head->data, HEAD_BYTES, 0);
    uint64_t file_bytes = 0;

    if (len < 0)
        return err_errno(errno, "read '%s'", path);
    memset(out_head->data + len, 0, HEAD_BYTES - (size_t)len);
    TRY(file_size(fd, path, &file_bytes));
    TRY(err_wrap(qcow_header_parse(out_head->data, HEAD_BYTES, file_bytes, &out_head->header),
                 "image '%s'", path));
    out_head->end = out_head->note_at = out_head->note_len = 0;
    return find_extensions(out_head, path);
}

struct err *qcow_predecessors_read(int fd, const char *path,
                                   struct qcow_predecessors *out_predecessors)
{
    struct head head;

    TRY(read_head(fd, path, &head));
    if (head.note_len % 8 != 0 || head.note_len > EXTENSION_BYTES_MAX)
        return malformed(path);
    struct reader in = reader_of(head.data + head.note_at, head.note_len);
    out_predecessors->count = (unsigned)(head.note_len / 8);
    for (unsigned i = 0; i < out_predecessors->count; i++)
        out_predecessors->sizes[i] = reader_be64(&in);
    return NULL;
}

struct err *qcow_predecessors_write(int fd, const char *path,
                                    const struct qcow_predecessors *predecessors)
{
    struct head head;
    uint8_t data[HEAD_BYTES] = {0};
    struct writer out = writer_of(data, sizeof(data));

    TRY(read_head(fd, path, &head));
    if (head.note_at != 0 || predecessors->count > QCOW_PREDECESSORS_MAX)
        return err_new(ERR_STATE, "image '%s' says already whose place it took", path);
    if (head.end == 0)
        return malformed(path);
    size_t name_bytes = head.header.backing_bytes;
    size_t name_at =
        head.end + EXTENSION_HEAD_BYTES + (size_t)predecessors->count * 8 + EXTENSION_HEAD_BYTES;
    writer_bytes(&out, head.data, AT_BACKING_OFFSET);
    writer_be64(&out, name_bytes == 0 ? 0 : name_at);
    writer_bytes(&out, head.data + AT_BACKING_OFFSET + 8, head.end - AT_BACKING_OFFSET - 8);
    writer_be32(&out, EXTENSION_TYPE);
    writer_be32(&out, predecessors->count * 8);
    for (unsigned i = 0; i < predecessors->count; i++)
        writer_be64(&out, predecessors->sizes[i]);
    writer_be64(&out, QCOW_EXTENSION_END);
    writer_bytes(&out, head.header.backing_name, name_bytes);
    if (!writer_ok(&out))
        return err_new(ERR_INVALID, "image '%s': its header has no room for more", path);
    return file_write_at(fd, path, data, sizeof(data), 0);
}
