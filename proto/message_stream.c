/* SPDX-License-Identifier: Apache-2.0 */
/*
 * message_stream.c - length-delimited protobuf messages, bounded.
 */
#include "proto/message_stream.h"

#include <stdlib.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"

#define VARINT_BYTES_MAX 10u

/* A sub-message of two bytes unpacks to a struct of about a hundred: real messages stay far below
 * four times their length, a hostile one would be fifty times. */
#define UNPACK_MEMORY_BASE   (1u * MIB)
#define UNPACK_MEMORY_FACTOR 4u

struct memory_budget {
    size_t left;
};

static void *budget_alloc(void *context, size_t bytes)
{
    struct memory_budget *budget = context;
    if (bytes > budget->left)
        return NULL;
    budget->left -= bytes;
    return malloc(bytes);
}

/* Plain free(), so that messages can be freed without the budget that they were made under. */
static void budget_free(void *context, void *memory)
{
    (void)context;
    free(memory);
}

struct err *message_pack(const ProtobufCMessage *message, size_t bytes_max, uint8_t **out_data,
                         size_t *out_len)
{
    size_t body_bytes = protobuf_c_message_get_packed_size(message);
    if (body_bytes > bytes_max)
        return err_new(ERR_INVALID, "message %s of %zu bytes; the most is %zu",
                       message->descriptor->name, body_bytes, bytes_max);

    uint8_t *data = malloc(VARINT_BYTES_MAX + body_bytes);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "message %s of %zu bytes", message->descriptor->name,
                       body_bytes);
    struct writer out = writer_of(data, VARINT_BYTES_MAX);
    writer_varint(&out, body_bytes);
    protobuf_c_message_pack(message, out.at);

    *out_len = (size_t)(out.at - data) + body_bytes;
    *out_data = data;
    return NULL;
}

struct err *message_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t len,
                           ProtobufCMessage **out_message)
{
    uint64_t memory_max;
    if (!checked_mul(len, UNPACK_MEMORY_FACTOR, &memory_max) ||
        !checked_add(memory_max, UNPACK_MEMORY_BASE, &memory_max))
        return err_new(ERR_INVALID, "message %s of %zu bytes", type->name, len);

    struct memory_budget budget = {.left = memory_max};
    ProtobufCAllocator allocator = {
        .alloc = budget_alloc, .free = budget_free, .allocator_data = &budget};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, data);
    if (message == NULL)
        return err_new(ERR_INVALID, "message %s of %zu bytes can not be read", type->name, len);
    *out_message = message;
    return NULL;
}

struct err *message_span_find(const uint8_t *data, size_t len, size_t bytes_max,
                              struct message_span *out_span)
{
    struct reader in = reader_of(data, MIN(len, VARINT_BYTES_MAX));
    uint64_t body_bytes = reader_varint(&in);

    if (!reader_ok(&in)) {
        if (len >= VARINT_BYTES_MAX)
            return err_new(ERR_INVALID, "message with a malformed length");
        *out_span = (struct message_span){0};
        return NULL;
    }
    if (body_bytes > bytes_max)
        return err_new(ERR_INVALID, "message of %llu bytes; the most is %zu",
                       (unsigned long long)body_bytes, bytes_max);

    size_t head_bytes = (size_t)(in.at - data);
    *out_span = (struct message_span){
        .is_complete = len - head_bytes >= body_bytes,
        .head_bytes = head_bytes,
        .body_bytes = (size_t)body_bytes,
    };
    return NULL;
}

struct err *message_next(struct reader *in, const ProtobufCMessageDescriptor *type,
                         size_t bytes_max, ProtobufCMessage **out_message)
{
    if (reader_left(in) == 0 && reader_ok(in)) {
        *out_message = NULL;
        return NULL;
    }

    struct message_span span;
    TRY(message_span_find(in->at, reader_left(in), bytes_max, &span));
    if (!span.is_complete)
        return err_new(ERR_INVALID, "message %s is cut short", type->name);
    TRY(message_unpack(type, in->at + span.head_bytes, span.body_bytes, out_message));
    reader_skip(in, span.head_bytes + span.body_bytes);
    return NULL;
}
