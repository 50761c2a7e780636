/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_net_state.c - saving and restoring a network card. Its address is the machine's
 * configuration: a clone gets another one.
 *
 * Tested by: virtio_net_test.c.
 */
#include "base/checked_math.h"
#include "vmm/devices/state_message.h"
#include "vmm/devices/virtio/virtio_net_internal.h"

struct err *virtio_net_save(struct device *device, ProtobufCMessage **out_state)
{
    struct virtio_net *net = CONTAINER_OF(virtio_pci_of(device), struct virtio_net, pci);
    Ferry__VirtioNetState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__virtio_net_state__descriptor, &state));

    state->announcing = atomic_load(&net->is_announcing);
    struct err *err = virtio_pci_save(&net->pci, &state->transport);
    return state_message_finish(err, &state->base, out_state);
}

struct err *virtio_net_validate(struct device *device, uint32_t version,
                                const ProtobufCMessage *message)
{
    const struct virtio_net *net = CONTAINER_OF(virtio_pci_of(device), struct virtio_net, pci);

    (void)version;
    return virtio_pci_validate(&net->pci, STATE_MESSAGE(Ferry__VirtioNetState, message)->transport);
}

struct err *virtio_net_apply(struct device *device, const ProtobufCMessage *message)
{
    struct virtio_net *net = CONTAINER_OF(virtio_pci_of(device), struct virtio_net, pci);
    const Ferry__VirtioNetState *state = STATE_MESSAGE(Ferry__VirtioNetState, message);

    virtio_pci_apply(&net->pci, state->transport);
    atomic_store(&net->is_announcing, state->announcing);
    net->must_announce = true;
    return NULL;
}
