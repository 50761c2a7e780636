/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_pci_state.c - what all virtio functions save and restore.
 *
 * Tested by: virtio_pci_test.c.
 */
#include "vmm/bus/pci_msix.h"
#include "vmm/devices/state_message.h"
#include "vmm/devices/virtio/virtio_pci_internal.h"

#define STATUS_BITS                                                                                \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |            \
     VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED)

static struct err *queues_save(struct virtio_pci *pci, Ferry__VirtioPciState *state)
{
    ProtobufCMessage **queues = NULL;
    struct err *err = state_repeated_create(&ferry__virtqueue_state__descriptor,
                                            pci->model->queue_count, &state->n_queues, &queues);
    state->queues = (Ferry__VirtqueueState **)(void *)queues;
    if (err != NULL)
        return err;
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        virtqueue_save(&pci->queues[i].queue, state->queues[i]);
        state->queues[i]->msix_vector = atomic_load(&pci->queues[i].msix_vector);
    }
    return NULL;
}

struct err *virtio_pci_save(struct virtio_pci *pci, Ferry__VirtioPciState **out_state)
{
    Ferry__VirtioPciState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__virtio_pci_state__descriptor, &state));

    state->status = virtio_pci_status(pci);
    state->driver_features = pci->driver_features;
    state->device_feature_select = pci->device_feature_select;
    state->driver_feature_select = pci->driver_feature_select;
    state->queue_select = pci->queue_select;
    state->config_msix_vector = atomic_load(&pci->config_msix_vector);
    state->config_generation = atomic_load(&pci->generation);
    state->isr = atomic_load(&pci->isr);
    struct err *err = pci_function_save(&pci->function, &state->function);
    if (err == NULL)
        err = queues_save(pci, state);
    return state_message_finish(err, &state->base, (ProtobufCMessage **)(void *)out_state);
}

static struct err *features_validate(const struct virtio_pci *pci, uint64_t features)
{
    uint64_t missing = features & ~pci->features;

    if (missing != 0)
        return err_new(ERR_INCOMPATIBLE,
                       "the guest uses virtio features 0x%llx, which this host's device lacks",
                       (unsigned long long)missing);
    return NULL;
}

static struct err *vector_validate(const struct virtio_pci *pci, const char *field, uint32_t vector)
{
    if (vector == VIRTIO_PCI_NO_VECTOR)
        return NULL;
    return state_check_max(field, vector, pci_msix_vector_count(pci->function.msix) - 1u);
}

struct err *virtio_pci_validate(const struct virtio_pci *pci, const Ferry__VirtioPciState *state)
{
    if (state == NULL)
        return err_new(ERR_INVALID, "virtio state is missing");
    TRY(pci_function_validate(&pci->function, state->function));
    TRY(state_check_bits("status", state->status, STATUS_BITS));
    TRY(features_validate(pci, state->driver_features));
    if ((state->status & VIRTIO_CONFIG_S_DRIVER_OK) != 0 &&
        (state->status & VIRTIO_CONFIG_S_FEATURES_OK) == 0)
        return err_new(ERR_INVALID, "status 0x%x: a driver that is ready without features",
                       state->status);
    TRY(state_check_max("queue_select", state->queue_select, UINT16_MAX));
    TRY(state_check_max("config_generation", state->config_generation, UINT8_MAX));
    TRY(state_check_bits("isr", state->isr, 0x3));
    TRY(vector_validate(pci, "config_msix_vector", state->config_msix_vector));
    if (state->n_queues != pci->model->queue_count)
        return err_new(ERR_INVALID, "%zu queues; the device has %u", state->n_queues,
                       pci->model->queue_count);
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        struct err *err = virtqueue_validate(&pci->queues[i].queue, state->queues[i]);
        if (err == NULL)
            err = vector_validate(pci, "msix_vector", state->queues[i]->msix_vector);
        if (err != NULL)
            return err_wrap(err, "queue %u", i);
    }
    return NULL;
}

void virtio_pci_apply(struct virtio_pci *pci, const Ferry__VirtioPciState *state)
{
    pci_function_apply(&pci->function, state->function);
    pci->status = (uint8_t)(state->status & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET);
    atomic_store(&pci->needs_reset, (state->status & VIRTIO_CONFIG_S_NEEDS_RESET) != 0);
    pci->driver_features = state->driver_features;
    pci->device_feature_select = state->device_feature_select;
    pci->driver_feature_select = state->driver_feature_select;
    pci->queue_select = (uint16_t)state->queue_select;
    atomic_store(&pci->config_msix_vector, (uint16_t)state->config_msix_vector);
    atomic_store(&pci->generation, (uint8_t)state->config_generation);
    atomic_store(&pci->isr, (uint8_t)state->isr);
    for (unsigned i = 0; i < pci->model->queue_count; i++) {
        virtqueue_apply(&pci->queues[i].queue, state->queues[i]);
        atomic_store(&pci->queues[i].msix_vector, (uint16_t)state->queues[i]->msix_vector);
    }
    virtio_pci_features_apply(pci);
    pci->is_restored = true;
}
