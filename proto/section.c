/* SPDX-License-Identifier: Apache-2.0 */
/*
 * section.c - lists of sections: made from messages here, checked when they come from elsewhere.
 */
#include "proto/section.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/limits.h"
#include "proto/message_stream.h"

#define LIST_CAPACITY_START 16u

struct section_list {
    Ferry__MachineState state; /* owns its sections */
    size_t capacity;
    uint64_t body_bytes; /* of all sections */
};

struct err *section_list_create(struct section_list **out_list)
{
    struct section_list *list = calloc(1, sizeof(*list));
    if (list == NULL)
        return err_new(ERR_NO_MEMORY, "list of sections");
    ferry__machine_state__init(&list->state);
    *out_list = list;
    return NULL;
}

static void section_free(Ferry__Section *section)
{
    if (section == NULL)
        return;
    free(section->name);
    free(section->body.data);
    free(section);
}

DEFINE_CLEANUP(section, Ferry__Section, section_free)
DEFINE_CLEANUP(section_list, struct section_list, section_list_destroy)

void section_list_destroy(struct section_list *list)
{
    if (list == NULL)
        return;
    for (size_t i = 0; i < list->state.n_sections; i++)
        section_free(list->state.sections[i]);
    free(list->state.sections);
    free(list);
}

static bool name_is_valid(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len <= STATE_SECTION_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

/* A section without content, with room for body_bytes, that is within every bound. */
static struct err *section_create(const char *name, uint32_t instance, size_t body_bytes,
                                  Ferry__Section **out_section)
{
    if (!name_is_valid(name))
        return err_new(ERR_INVALID, "section name is not 1..%u of [a-z0-9._-]",
                       STATE_SECTION_NAME_MAX);
    if (body_bytes > STATE_SECTION_BYTES_MAX)
        return err_new(ERR_INVALID, "section '%s' %u: %zu bytes; the most is %llu", name, instance,
                       body_bytes, (unsigned long long)STATE_SECTION_BYTES_MAX);

    CLEANUP(cleanup_section) Ferry__Section *section = calloc(1, sizeof(*section));
    if (section == NULL)
        return err_new(ERR_NO_MEMORY, "section '%s'", name);
    ferry__section__init(section);
    section->name = strdup(name);
    section->instance = instance;
    section->body.len = body_bytes;
    section->body.data = malloc(body_bytes + 1); /* an empty body is not NULL */
    if (section->name == NULL || section->body.data == NULL)
        return err_new(ERR_NO_MEMORY, "section '%s' of %zu bytes", name, body_bytes);
    *out_section = TAKE_PTR(section);
    return NULL;
}

static uint64_t section_checksum(const Ferry__Section *section)
{
    return XXH3_64bits(section->body.data, section->body.len);
}

/* Takes the section over only on success. */
static struct err *list_append(struct section_list *list, Ferry__Section *section)
{
    if (section_list_find(list, section->name, section->instance) != NULL)
        return err_new(ERR_INVALID, "section '%s' %u occurs twice", section->name,
                       section->instance);
    if (list->state.n_sections >= STATE_SECTIONS_MAX)
        return err_new(ERR_INVALID, "more than %u sections", STATE_SECTIONS_MAX);
    if (section->body.len > STATE_BYTES_MAX - list->body_bytes)
        return err_new(ERR_INVALID, "sections of more than %llu bytes together",
                       (unsigned long long)STATE_BYTES_MAX);

    if (list->state.n_sections == list->capacity) {
        size_t capacity = list->capacity == 0 ? LIST_CAPACITY_START : 2 * list->capacity;
        Ferry__Section **grown =
            realloc(list->state.sections, capacity * sizeof(*list->state.sections));
        if (grown == NULL)
            return err_new(ERR_NO_MEMORY, "list of %zu sections", capacity);
        list->state.sections = grown;
        list->capacity = capacity;
    }
    list->state.sections[list->state.n_sections++] = section;
    list->body_bytes += section->body.len;
    return NULL;
}

struct err *section_list_add(struct section_list *list, const char *name, uint32_t instance,
                             uint32_t version, const ProtobufCMessage *message)
{
    CLEANUP(cleanup_section) Ferry__Section *section = NULL;
    TRY(section_create(name, instance, protobuf_c_message_get_packed_size(message), &section));
    section->version = version;
    protobuf_c_message_pack(message, section->body.data);
    section->checksum = section_checksum(section);
    TRY(list_append(list, section));
    (void)TAKE_PTR(section);
    return NULL;
}

const Ferry__MachineState *section_list_message(const struct section_list *list)
{
    return &list->state;
}

static struct err *section_copy(const Ferry__Section *from, Ferry__Section **out_section)
{
    CLEANUP(cleanup_section) Ferry__Section *section = NULL;
    TRY(section_create(from->name, from->instance, from->body.len, &section));
    section->version = from->version;
    section->checksum = from->checksum;
    if (from->body.len > 0)
        memcpy(section->body.data, from->body.data, from->body.len);
    if (section_checksum(section) != section->checksum)
        return err_new(ERR_INVALID, "section '%s' %u is damaged: its checksum does not match",
                       section->name, section->instance);
    *out_section = TAKE_PTR(section);
    return NULL;
}

struct err *section_list_from_message(const Ferry__MachineState *message,
                                      struct section_list **out_list)
{
    if (message->n_sections > STATE_SECTIONS_MAX)
        return err_new(ERR_INVALID, "machine state of %zu sections; the most is %u",
                       message->n_sections, STATE_SECTIONS_MAX);

    CLEANUP(cleanup_section_list) struct section_list *list = NULL;
    TRY(section_list_create(&list));
    for (size_t i = 0; i < message->n_sections; i++) {
        CLEANUP(cleanup_section) Ferry__Section *section = NULL;
        struct err *err = section_copy(message->sections[i], &section);
        if (err == NULL)
            err = list_append(list, section);
        if (err != NULL)
            return err_wrap(err, "machine state, section %zu", i);
        (void)TAKE_PTR(section);
    }
    *out_list = TAKE_PTR(list);
    return NULL;
}

const Ferry__Section *section_list_find(const struct section_list *list, const char *name,
                                        uint32_t instance)
{
    for (size_t i = 0; i < list->state.n_sections; i++) {
        const Ferry__Section *section = list->state.sections[i];
        if (section->instance == instance && strcmp(section->name, name) == 0)
            return section;
    }
    return NULL;
}

struct err *section_unpack(const Ferry__Section *section, const ProtobufCMessageDescriptor *type,
                           ProtobufCMessage **out_message)
{
    struct err *err = message_unpack(type, section->body.data, section->body.len, out_message);
    return err == NULL ? NULL : err_wrap(err, "section '%s' %u", section->name, section->instance);
}
