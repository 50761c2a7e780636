/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.h - how messages of a migration follow each other in a stream of bytes.
 *
 *     0a  varint(frame bytes)                      field 1 of MigrationStream
 *         tag varint(body bytes) body              the one body of MigrationFrame
 *         7a  varint(payload bytes) payload        field 15, only when there is a payload
 *
 * The head is all but the payload: it is packed and parsed through protobuf-c, the payload goes
 * from and to memory of the caller's choice. Thread: any.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "proto/migration.pb-c.h"

/* What the head is longer than its body at most: two varints, two tags, a varint. */
#define FRAME_OVERHEAD_MAX 32u

/* Initialises `frame` with one body: FRAME_BODY(frame, HELLO, hello, &hello). */
#define FRAME_BODY(frame, CASE, field, message)                                                    \
    do {                                                                                           \
        ferry__migration_frame__init(frame);                                                       \
        (frame)->body_case = FERRY__MIGRATION_FRAME__BODY_##CASE;                                  \
        (frame)->field = (message);                                                                \
    } while (0)

/* Writes the head of a frame whose payload, of payload_bytes, the caller sends right after it. */
ERR_RESULT frame_pack_head(const Ferry__MigrationFrame *frame, uint64_t payload_bytes,
                           struct writer *out);
size_t frame_head_bytes_max(const Ferry__MigrationFrame *frame);

struct frame_limits {
    size_t body_bytes_max;
    size_t payload_bytes_max;
};

struct frame_head {
    size_t head_bytes;     /* where the payload begins */
    size_t message_offset; /* what frame_unpack takes begins here ... */
    size_t message_bytes;  /* ... and is so long */
    size_t payload_bytes;
};

/* Looks for a whole head at the start of `bytes`. When more bytes are needed *out_more says how
 * many at least, else it is 0 and *out_head is filled. ERR_INVALID: this is no frame, or one above
 * the limits. */
ERR_RESULT frame_scan(const uint8_t *bytes, size_t len, struct frame_limits limits,
                      struct frame_head *out_head, size_t *out_more);

/* Unpacks a scanned head. Free with ferry__migration_frame__free_unpacked(frame, NULL).
 * ERR_INCOMPATIBLE: a kind of frame that this version does not have. */
ERR_RESULT frame_unpack(const uint8_t *bytes, const struct frame_head *head,
                        Ferry__MigrationFrame **out_frame);

/* The body's name for messages: "offer". */
const char *frame_name(Ferry__MigrationFrame__BodyCase body_case);

#endif
