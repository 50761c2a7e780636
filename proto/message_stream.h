/* SPDX-License-Identifier: Apache-2.0 */
/*
 * message_stream.h - protobuf messages one after the other, each preceded by its length as a
 * varint: the framing of control sockets and manifests, which `protoc --decode` understands once
 * the lengths are cut off.
 *
 * Bytes from outside are parsed under two bounds: the length that the caller allows, and the
 * memory that unpacking may take, because a few bytes can stand for a large struct. Thread: any.
 */
#ifndef PROTO_MESSAGE_STREAM_H
#define PROTO_MESSAGE_STREAM_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

/* The message and its length before it, in one allocation that the caller frees. ERR_INVALID when
 * the message is longer than bytes_max. */
ERR_RESULT message_pack(const ProtobufCMessage *message, size_t bytes_max, uint8_t **out_data,
                        size_t *out_len);

/* One message's bytes without a length. ERR_INVALID names the message's type.
 * Free with protobuf_c_message_free_unpacked(message, NULL). */
ERR_RESULT message_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len,
                          ProtobufCMessage **out_message);

/* What stands at the start of a buffer that is still being filled. */
struct message_span {
    bool is_complete;  /* length and body are all there */
    size_t head_bytes; /* of the length; 0 while it is incomplete */
    size_t body_bytes;
};
ERR_RESULT message_span_find(const uint8_t *data, size_t len, size_t bytes_max,
                             struct message_span *out_span);

/* Takes the next message from complete bytes; at their end *out_message is NULL. A message that is
 * cut short is ERR_INVALID. */
ERR_RESULT message_next(struct reader *in, const ProtobufCMessageDescriptor *type, size_t bytes_max,
                        ProtobufCMessage **out_message);

#endif
