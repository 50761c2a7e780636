/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state_message.h - what the save and validate functions of all devices share.
 *
 * Thread: any.
 */
#ifndef VMM_DEVICES_STATE_MESSAGE_H
#define VMM_DEVICES_STATE_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* An empty message of the type; free with protobuf_c_message_free_unpacked. */
ERR_RESULT state_message_create(const ProtobufCMessageDescriptor *type,
                                ProtobufCMessage **out_message);

/* The same into a pointer of the generated type. */
#define STATE_MESSAGE_CREATE(type, out_state)                                                      \
    state_message_create((type), (ProtobufCMessage **)(void *)(out_state))

/* A received message as its generated type. The caller knows that it is of that type. */
#define STATE_MESSAGE(c_type, message) ((const c_type *)(const void *)(message))

/* The end of a save: hands the message over, or frees it when err says that filling it failed. */
ERR_RESULT state_message_finish(struct err *err, ProtobufCMessage *message,
                                ProtobufCMessage **out_message);

ERR_RESULT state_bytes_set(ProtobufCBinaryData *field, const void *data, size_t len);

/* An array of count empty messages of the type, as a repeated field holds them. */
ERR_RESULT state_repeated_create(const ProtobufCMessageDescriptor *type, size_t count,
                                 size_t *out_count, ProtobufCMessage ***out_messages);

/* ERR_INVALID that names the field. */
ERR_RESULT state_check_max(const char *field, uint64_t value, uint64_t max);
ERR_RESULT state_check_bits(const char *field, uint64_t value, uint64_t allowed);

#endif
