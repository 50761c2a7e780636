/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_backing.c - see qcow_backing.h.
 *
 * The first sector is written last and as a whole, which is what a power cut can not tear. What
 * changes behind it must lie where the old header has nothing: the new name goes behind the old
 * one, an extension for the format takes the place of the end of the list.
 */
#include "storage/qcow/qcow_backing.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_header.h"

#define SECTOR_BYTES         ((size_t)512)
#define EXTENSION_HEAD_BYTES 8u
#define FORMAT_BYTES_MAX     8u /* of one that fits where any other stood */
#define NAME_BYTES_MAX       1023u
#define AT_BACKING_OFFSET    8u
#define AT_BACKING_BYTES     16u

struct head {
    struct qcow_header header;
    size_t cluster_bytes;
    uint8_t *old_data; /* owned; the first cluster */
    uint8_t *new_data; /* owned */
    size_t format_at;  /* the extension; 0: there is none */
    size_t end_at;     /* of the mark that ends the list; 0: there is none */
    size_t extent_end; /* behind the list */
    size_t used_end;   /* behind the old list */
};

static void head_finish(struct head *head)
{
    free(head->old_data);
    free(head->new_data);
}

/* qcow_header_read has checked that the list is sound. */
static void find_extensions(struct head *head)
{
    size_t limit = head->header.backing_offset != 0 ? (size_t)head->header.backing_offset
                                                    : head->cluster_bytes;
    size_t at = head->header.header_bytes;

    while (at <= limit && limit - at >= EXTENSION_HEAD_BYTES) {
        struct reader in = reader_of(head->old_data + at, EXTENSION_HEAD_BYTES);
        uint32_t type = reader_be32(&in), len = reader_be32(&in);
        if (type == QCOW_EXTENSION_END) {
            head->end_at = at;
            at += EXTENSION_HEAD_BYTES;
            break;
        }
        if (type == QCOW_EXTENSION_BACKING_FORMAT)
            head->format_at = at;
        at += EXTENSION_HEAD_BYTES + align_up(len, 8);
    }
    head->extent_end = MIN(at, head->cluster_bytes);
    head->used_end = head->end_at != 0 ? head->end_at + EXTENSION_HEAD_BYTES
                                       : (size_t)head->header.backing_offset;
}

static struct err *load(struct host_file *file, struct head *head)
{
    TRY(qcow_header_read(file, &head->header));
    head->cluster_bytes = (size_t)1 << head->header.cluster_bits;
    head->old_data = malloc(head->cluster_bytes);
    head->new_data = malloc(head->cluster_bytes);
    if (head->old_data == NULL || head->new_data == NULL)
        return err_new(ERR_NO_MEMORY, "change the header of '%s'", file->path);
    TRY(host_file_read_bytes(file, head->old_data, head->cluster_bytes, 0));
    memcpy(head->new_data, head->old_data, head->cluster_bytes);
    find_extensions(head);
    return NULL;
}

static struct err *no_room(const struct host_file *file)
{
    return err_new(ERR_INCOMPATIBLE,
                   "the header of '%s' has no room for the change; make a new image of it with "
                   "'vm-disk convert'",
                   file->path);
}

/* Makes room before all other extensions, so that the format lies in the first sector and can be
 * changed later: QEMU's table of names would leave it half outside. False: as it was; that of
 * bitmaps, whose place others may know, is not moved. */
static bool make_room_in_front(struct head *head)
{
    size_t first = head->header.header_bytes, bytes = EXTENSION_HEAD_BYTES + FORMAT_BYTES_MAX;

    if (head->end_at == 0 || head->end_at + EXTENSION_HEAD_BYTES > SECTOR_BYTES ||
        head->header.has_bitmap_extension || head->end_at + bytes > head->cluster_bytes - bytes)
        return false;
    memmove(head->new_data + first + bytes, head->old_data + first,
            head->end_at + EXTENSION_HEAD_BYTES - first);
    head->end_at += bytes;
    head->extent_end = head->end_at + EXTENSION_HEAD_BYTES;
    head->format_at = first;
    return true;
}

/* False: it does not fit. */
static bool put_format(struct head *head, const char *format)
{
    uint8_t old_len = 0;
    bool is_in_front = head->format_at == 0 && make_room_in_front(head);
    size_t at = head->format_at != 0 ? head->format_at : head->end_at;
    size_t bytes = EXTENSION_HEAD_BYTES + FORMAT_BYTES_MAX;
    bool is_new = head->format_at == 0;

    if (at == 0 || at + bytes + (is_new ? EXTENSION_HEAD_BYTES : 0) > head->cluster_bytes)
        return false;
    if (!is_new && !is_in_front) {
        old_len = head->old_data[at + EXTENSION_HEAD_BYTES - 1];
        if (old_len == 0 || old_len > FORMAT_BYTES_MAX)
            return false;
    }
    struct writer out = writer_of(head->new_data + at, bytes + EXTENSION_HEAD_BYTES);
    uint8_t padded[FORMAT_BYTES_MAX] = {0};
    memcpy(padded, format, strlen(format));
    writer_be32(&out, QCOW_EXTENSION_BACKING_FORMAT);
    writer_be32(&out, (uint32_t)strlen(format));
    writer_bytes(&out, padded, sizeof(padded));
    if (!is_new)
        return true;
    writer_be64(&out, QCOW_EXTENSION_END);
    head->extent_end = at + bytes + EXTENSION_HEAD_BYTES;
    return true;
}

/* Behind the extensions, or behind the old name if that is there and can not be replaced at once.
 */
static size_t place_name(const struct head *head, size_t len)
{
    size_t at = head->extent_end, old_at = (size_t)head->header.backing_offset;
    size_t old_end = old_at + head->header.backing_bytes;
    bool is_in_sector = at + len <= SECTOR_BYTES && old_end <= SECTOR_BYTES;

    return head->header.backing_offset == 0 || is_in_sector ? at : MAX(at, old_end);
}

static bool put_name(struct head *head, const char *name, size_t len)
{
    size_t at = len == 0 ? 0 : place_name(head, len);
    struct writer out = writer_of(head->new_data + AT_BACKING_OFFSET, 12);

    if (len > head->cluster_bytes || at > head->cluster_bytes - len)
        return false;
    writer_be64(&out, at);
    writer_be32(&out, (uint32_t)len);
    if (len > 0)
        memcpy(head->new_data + at, name, len);
    return true;
}

/* Is what changes behind the first sector unused in the old header? */
static bool is_safe(const struct head *head)
{
    size_t name_at = (size_t)head->header.backing_offset;

    for (size_t at = SECTOR_BYTES; at < head->cluster_bytes; at++) {
        bool is_used =
            at < head->used_end || (name_at != 0 && at - name_at < head->header.backing_bytes);
        if (is_used && head->old_data[at] != head->new_data[at])
            return false;
    }
    return true;
}

static struct err *store(struct host_file *file, const struct head *head)
{
    size_t rest = head->cluster_bytes - SECTOR_BYTES;

    if (rest > 0 &&
        memcmp(head->old_data + SECTOR_BYTES, head->new_data + SECTOR_BYTES, rest) != 0) {
        TRY(host_file_write_bytes(file, head->new_data + SECTOR_BYTES, rest, SECTOR_BYTES));
        TRY(host_file_sync(file));
    }
    TRY(host_file_write_bytes(file, head->new_data, SECTOR_BYTES, 0));
    return host_file_sync(file);
}

struct err *qcow_backing_set(struct host_file *file, const char *name, const char *format)
{
    CLEANUP(head_finish) struct head head = {.format_at = 0};
    size_t len = name == NULL ? 0 : strlen(name);

    if (len > NAME_BYTES_MAX || (name != NULL && (len == 0 || strlen(format) > FORMAT_BYTES_MAX)))
        return err_new(ERR_INVALID, "the backing image's name has %zu bytes; it must be 1..%u", len,
                       NAME_BYTES_MAX);
    TRY(load(file, &head));
    if (name != NULL && !put_format(&head, format))
        return no_room(file);
    if (!put_name(&head, name, len) || !is_safe(&head))
        return no_room(file);
    return store(file, &head);
}
