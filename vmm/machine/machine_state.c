/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine_state.c - saves and loads a machine: one section for each device of its list.
 *
 * Loading is in three passes over the list, so that a state that does not fit changes nothing:
 * find and unpack every section, validate all, and only then apply them in the list's order.
 *
 * Tested by: tests/system.
 */
#include <stdlib.h>

#include "proto/section.h"
#include "vmm/cpu/vcpu_set.h"
#include "vmm/machine/machine_internal.h"

struct err *machine_save(struct paused_machine *paused, struct section_list *out_sections)
{
    struct machine *machine = paused->machine;

    for (size_t i = 0; i < machine->device_count; i++) {
        struct device *device = machine->devices[i];
        ProtobufCMessage *state = NULL;
        TRY(err_wrap(device->ops->save(device, &state), "save '%s' %u", device->ops->section,
                     device->instance));
        struct err *err = section_list_add(out_sections, device->ops->section, device->instance,
                                           device->ops->version, state);
        protobuf_c_message_free_unpacked(state, NULL);
        TRY(err);
    }
    return NULL;
}

static struct err *unpack(struct device *device, const struct section_list *sections,
                          uint32_t *out_version, ProtobufCMessage **out_state)
{
    const struct device_ops *ops = device->ops;
    const Ferry__Section *section = section_list_find(sections, ops->section, device->instance);

    if (section == NULL)
        return err_new(ERR_INCOMPATIBLE, "section '%s' %u is missing", ops->section,
                       device->instance);
    if (section->version == 0 || section->version > ops->version)
        return err_new(ERR_INCOMPATIBLE,
                       "section '%s' %u has version %u, and this program knows 1..%u", ops->section,
                       device->instance, section->version, ops->version);
    *out_version = section->version;
    return section_unpack(section, ops->state_type, out_state);
}

/* Every section belongs to a device of this machine. */
static struct err *check_owners(const struct machine *machine, const struct section_list *sections)
{
    const Ferry__MachineState *message = section_list_message(sections);

    if (message->n_sections == machine->device_count)
        return NULL; /* none is missing, as was seen, and no two are alike */
    return err_new(ERR_INCOMPATIBLE,
                   "%zu sections for %zu devices: the state is of another machine",
                   message->n_sections, machine->device_count);
}

static struct err *validate_all(struct machine *machine, const struct section_list *sections,
                                ProtobufCMessage **states)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        struct device *device = machine->devices[i];
        uint32_t version = 0;
        TRY(unpack(device, sections, &version, &states[i]));
        TRY(err_wrap(device->ops->validate(device, version, states[i]), "section '%s' %u",
                     device->ops->section, device->instance));
    }
    return check_owners(machine, sections);
}

static struct err *apply_all(struct machine *machine, ProtobufCMessage **states)
{
    for (size_t i = 0; i < machine->device_count; i++) {
        struct device *device = machine->devices[i];
        TRY(err_wrap(device->ops->apply(device, states[i]), "apply '%s' %u", device->ops->section,
                     device->instance));
    }
    return NULL;
}

struct err *machine_load(struct machine *machine, const struct section_list *sections,
                         struct paused_machine **out_paused)
{
    ProtobufCMessage **states = calloc(machine->device_count, sizeof(ProtobufCMessage *));
    if (states == NULL)
        return err_new(ERR_NO_MEMORY, "machine state");

    struct err *err = validate_all(machine, sections, states);
    if (err == NULL)
        err = apply_all(machine, states);
    for (size_t i = 0; i < machine->device_count; i++) {
        if (states[i] != NULL)
            protobuf_c_message_free_unpacked(states[i], NULL);
    }
    free(states);
    if (err != NULL)
        return err_wrap(err, "load the machine's state");
    vcpu_set_forget_first_run(machine->vcpus);
    *out_paused = &machine->paused;
    return NULL;
}
