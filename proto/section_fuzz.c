/* SPDX-License-Identifier: Apache-2.0 */
/*
 * section_fuzz.c - any bytes as a machine state: refused, or a list that can be walked.
 */
#include "proto/message_stream.h"
#include "proto/section.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    ProtobufCMessage *message;
    struct err *err = message_unpack(&ferry__machine_state__descriptor, data, len, &message);
    if (err != NULL) {
        err_free(err);
        return 0;
    }

    struct section_list *list = NULL;
    err = section_list_from_message((const Ferry__MachineState *)message, &list);
    if (err == NULL) {
        const Ferry__MachineState *state = section_list_message(list);
        for (size_t i = 0; i < state->n_sections; i++) {
            ProtobufCMessage *body;
            err = section_unpack(state->sections[i], &ferry__machine_config__descriptor, &body);
            if (err == NULL)
                protobuf_c_message_free_unpacked(body, NULL);
            err_free(err);
            err = NULL;
        }
    }
    err_free(err);
    section_list_destroy(list);
    protobuf_c_message_free_unpacked(message, NULL);
    return 0;
}
