/* SPDX-License-Identifier: Apache-2.0 */
/*
 * section.h - a machine's state as a list of named, versioned, checksummed messages.
 *
 * The machine's process packs one section for each device and vCPU; stores and migrations pass
 * them on unread. Thread: any; a list belongs to one thread.
 */
#ifndef PROTO_SECTION_H
#define PROTO_SECTION_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/machine.pb-c.h"

struct section_list; /* owns its sections */

ERR_RESULT section_list_create(struct section_list **out_list);
void section_list_destroy(struct section_list *list); /* accepts NULL */

/* Packs `message` as a section; name and instance together are unique in a list. */
ERR_RESULT section_list_add(struct section_list *list, const char *name, uint32_t instance,
                            uint32_t version, const ProtobufCMessage *message);

/* A view of the list as a message, valid until the list changes or is destroyed. */
const Ferry__MachineState *section_list_message(const struct section_list *list);

/* Copies a received message after checking every bound and checksum: section count, names, sizes,
 * duplicates. Errors name the section. */
ERR_RESULT section_list_from_message(const Ferry__MachineState *message,
                                     struct section_list **out_list);

/* NULL when there is none. */
const Ferry__Section *section_list_find(const struct section_list *list, const char *name,
                                        uint32_t instance);

/* Unpacks one section's body; the error names the section. Free with
 * protobuf_c_message_free_unpacked. */
ERR_RESULT section_unpack(const Ferry__Section *section, const ProtobufCMessageDescriptor *type,
                          ProtobufCMessage **out_message);

#endif
