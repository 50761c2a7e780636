/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame.c - see frame.h.
 */
#include "proto/frame.h"

#include "proto/message_stream.h"

#define TAG_FRAME   0x0au /* field 1, length-delimited */
#define TAG_PAYLOAD 0x7au /* field 15, length-delimited */

#define WIRE_TYPE_BYTES 2u

static size_t varint_bytes(uint64_t value)
{
    size_t count = 1;

    for (; value > 0x7f; value >>= 7)
        count++;
    return count;
}

size_t frame_head_bytes_max(const Ferry__MigrationFrame *frame)
{
    return ferry__migration_frame__get_packed_size(frame) + FRAME_OVERHEAD_MAX;
}

struct err *frame_pack_head(const Ferry__MigrationFrame *frame, uint64_t payload_bytes,
                            struct writer *out)
{
    size_t packed = ferry__migration_frame__get_packed_size(frame);
    uint64_t frame_bytes = packed;

    if (payload_bytes > 0)
        frame_bytes += 1 + varint_bytes(payload_bytes) + payload_bytes;
    writer_u8(out, TAG_FRAME);
    writer_varint(out, frame_bytes);
    if (!writer_ok(out) || writer_left(out) < packed)
        return err_new(ERR_INVALID, "frame '%s': %zu bytes are too many to send",
                       frame_name(frame->body_case), packed);

    out->at += ferry__migration_frame__pack(frame, out->at);
    if (payload_bytes > 0) {
        writer_u8(out, TAG_PAYLOAD);
        writer_varint(out, payload_bytes);
    }
    if (!writer_ok(out))
        return err_new(ERR_INVALID, "frame '%s': too long to send", frame_name(frame->body_case));
    return NULL;
}

/* A varint that is cut off by the end of the bytes is not yet an error; one that runs on is. */
static struct err *take_varint(struct reader *in, uint64_t *out_value, size_t *out_more)
{
    struct reader attempt = *in;
    uint64_t value = reader_varint(&attempt);

    if (!reader_ok(&attempt)) {
        if (reader_left(in) >= 10)
            return err_new(ERR_INVALID, "frame: a length does not end");
        *out_more = 1;
        return NULL;
    }
    *in = attempt;
    *out_value = value;
    *out_more = 0;
    return NULL;
}

static struct err *take_tag(struct reader *in, uint32_t *out_tag, size_t *out_more)
{
    *out_more = reader_left(in) == 0 ? 1 : 0;
    if (*out_more == 0)
        *out_tag = reader_u8(in);
    return NULL;
}

/* Fills the payload's part of the head; the reader stands behind the body. */
static struct err *scan_payload(struct reader *in, size_t left, struct frame_limits limits,
                                size_t *out_payload_bytes, size_t *out_more)
{
    uint32_t tag = 0;
    uint64_t payload_bytes = 0;
    const uint8_t *start = in->at;

    TRY(take_tag(in, &tag, out_more));
    if (*out_more != 0)
        return NULL;
    if (tag != TAG_PAYLOAD)
        return err_new(ERR_INVALID, "frame: tag %u follows the body, not a payload", tag);
    TRY(take_varint(in, &payload_bytes, out_more));
    if (*out_more != 0)
        return NULL;
    if (payload_bytes > limits.payload_bytes_max)
        return err_new(ERR_INVALID, "frame: payload of %ju bytes; the most is %zu",
                       (uintmax_t)payload_bytes, limits.payload_bytes_max);
    if ((size_t)(in->at - start) + payload_bytes != left)
        return err_new(ERR_INVALID, "frame: the payload does not end with the frame");

    *out_payload_bytes = (size_t)payload_bytes;
    return NULL;
}

struct err *frame_scan(const uint8_t *bytes, size_t len, struct frame_limits limits,
                       struct frame_head *out_head, size_t *out_more)
{
    struct reader in = reader_of(bytes, len);
    struct frame_head head = {0};
    uint32_t tag = 0;
    uint64_t frame_bytes = 0;
    uint64_t body_bytes = 0;

    TRY(take_tag(&in, &tag, out_more));
    if (*out_more != 0)
        return NULL;
    if (tag != TAG_FRAME)
        return err_new(ERR_INVALID, "this is not a migration stream");
    TRY(take_varint(&in, &frame_bytes, out_more));
    if (*out_more != 0)
        return NULL;
    head.message_offset = (size_t)(in.at - bytes);
    TRY(take_tag(&in, &tag, out_more));
    if (*out_more != 0)
        return NULL;
    if ((tag & 7) != WIRE_TYPE_BYTES || tag == TAG_PAYLOAD || (tag & 0x80) != 0)
        return err_new(ERR_INVALID, "frame: tag %u begins no body", tag);
    TRY(take_varint(&in, &body_bytes, out_more));
    if (*out_more != 0)
        return NULL;
    if (body_bytes > limits.body_bytes_max)
        return err_new(ERR_INVALID, "frame: body of %ju bytes; the most is %zu",
                       (uintmax_t)body_bytes, limits.body_bytes_max);

    size_t prefix = (size_t)(in.at - bytes) - head.message_offset;
    if (frame_bytes < prefix + body_bytes)
        return err_new(ERR_INVALID, "frame: the body is longer than its frame");
    uint64_t left = frame_bytes - prefix - body_bytes;
    if (reader_left(&in) < body_bytes) {
        *out_more = (size_t)body_bytes - reader_left(&in) + (left > 0 ? 2 : 0);
        return NULL;
    }
    reader_skip(&in, (size_t)body_bytes);
    head.message_bytes = prefix + (size_t)body_bytes;
    if (left > 0) {
        TRY(scan_payload(&in, left, limits, &head.payload_bytes, out_more));
        if (*out_more != 0)
            return NULL;
    }

    head.head_bytes = (size_t)(in.at - bytes);
    *out_head = head;
    *out_more = 0;
    return NULL;
}

struct err *frame_unpack(const uint8_t *bytes, const struct frame_head *head,
                         Ferry__MigrationFrame **out_frame)
{
    ProtobufCMessage *message = NULL;
    TRY(message_unpack(&ferry__migration_frame__descriptor, bytes + head->message_offset,
                       head->message_bytes, &message));

    /* The generated type embeds the message at its start. */
    Ferry__MigrationFrame *frame = (Ferry__MigrationFrame *)message;
    if (frame->body_case == FERRY__MIGRATION_FRAME__BODY__NOT_SET) {
        ferry__migration_frame__free_unpacked(frame, NULL);
        return err_new(ERR_INCOMPATIBLE,
                       "frame of a kind that this version does not know; use the same version of "
                       "Ferry on both hosts");
    }
    *out_frame = frame;
    return NULL;
}

const char *frame_name(Ferry__MigrationFrame__BodyCase body_case)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
        &ferry__migration_frame__descriptor, (unsigned)body_case);

    return field == NULL ? "unknown" : field->name;
}
