/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state_message.c - state messages are built so that protobuf-c's allocator can free them.
 *
 * Tested by: the state tests of every device.
 */
#include "vmm/devices/state_message.h"

#include <stdlib.h>
#include <string.h>

struct err *state_message_create(const ProtobufCMessageDescriptor *type,
                                 ProtobufCMessage **out_message)
{
    ProtobufCMessage *message = malloc(type->sizeof_message);
    if (message == NULL)
        return err_new(ERR_NO_MEMORY, "state message '%s'", type->name);

    type->message_init(message);
    *out_message = message;
    return NULL;
}

struct err *state_message_finish(struct err *err, ProtobufCMessage *message,
                                 ProtobufCMessage **out_message)
{
    if (err != NULL)
        protobuf_c_message_free_unpacked(message, NULL);
    else
        *out_message = message;
    return err;
}

struct err *state_bytes_set(ProtobufCBinaryData *field, const void *data, size_t len)
{
    if (len == 0)
        return NULL;
    field->data = malloc(len);
    if (field->data == NULL)
        return err_new(ERR_NO_MEMORY, "state of %zu bytes", len);

    memcpy(field->data, data, len);
    field->len = len;
    return NULL;
}

struct err *state_repeated_create(const ProtobufCMessageDescriptor *type, size_t count,
                                  size_t *out_count, ProtobufCMessage ***out_messages)
{
    ProtobufCMessage **messages = calloc(count, sizeof(ProtobufCMessage *));
    if (messages == NULL)
        return err_new(ERR_NO_MEMORY, "%zu state messages '%s'", count, type->name);

    /* Attached first and counted as they come, so that freeing the parent frees what there is. */
    *out_messages = messages;
    *out_count = 0;
    for (size_t i = 0; i < count; i++) {
        TRY(state_message_create(type, &messages[i]));
        ++*out_count;
    }
    return NULL;
}

struct err *state_check_max(const char *field, uint64_t value, uint64_t max)
{
    if (value <= max)
        return NULL;
    return err_new(ERR_INVALID, "%s %llu is above %llu", field, (unsigned long long)value,
                   (unsigned long long)max);
}

struct err *state_check_bits(const char *field, uint64_t value, uint64_t allowed)
{
    if ((value & ~allowed) == 0)
        return NULL;
    return err_new(ERR_INVALID, "%s 0x%llx has bits outside 0x%llx", field,
                   (unsigned long long)value, (unsigned long long)allowed);
}
