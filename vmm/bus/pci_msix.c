/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pci_msix.c - message-signalled interrupts of a PCI function.
 *
 * The host is told a vector's message when the vector becomes unmasked, not while the driver is
 * still writing it word by word: changing a route is slow.
 */
#include "vmm/bus/pci_msix.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/lock.h"
#include "base/log.h"
#include "vmm/bus/interrupts.h"
#include "vmm/devices/state_message.h"

#define ENTRY_WORDS    4u
#define WORD_ADDRESS   0u
#define WORD_UPPER     1u
#define WORD_DATA      2u
#define WORD_CONTROL   3u
#define CONTROL_MASKED 1u

struct msix_entry {
    uint32_t words[ENTRY_WORDS]; /* as the table shows them */
    uint32_t vector;             /* of interrupts.h */
    bool is_pending;
};

struct pci_msix {
    struct interrupts *interrupts;
    uint16_t count;
    struct lock lock;
    bool is_enabled GUARDED_BY(&lock);
    bool is_masked GUARDED_BY(&lock);
    struct msix_entry entries[PCI_MSIX_VECTORS_MAX] GUARDED_BY(&lock);
};

static void entry_clear(struct msix_entry *entry)
{
    memset(entry->words, 0, sizeof(entry->words));
    entry->words[WORD_CONTROL] = CONTROL_MASKED;
    entry->is_pending = false;
}

struct err *pci_msix_create(struct interrupts *interrupts, uint16_t vector_count,
                            struct pci_msix **out_msix)
{
    ASSERT(vector_count > 0 && vector_count <= PCI_MSIX_VECTORS_MAX);
    struct pci_msix *msix = calloc(1, sizeof(*msix));
    if (msix == NULL)
        return err_new(ERR_NO_MEMORY, "MSI-X table");

    lock_init(&msix->lock, LOCK_MSIX);
    msix->interrupts = interrupts;
    while (msix->count < vector_count) {
        struct msix_entry *entry = &msix->entries[msix->count];
        struct err *err = interrupts_msi_create(interrupts, &entry->vector);
        if (err != NULL) {
            pci_msix_destroy(msix);
            return err;
        }
        entry_clear(entry);
        msix->count++;
    }
    *out_msix = msix;
    return NULL;
}

void pci_msix_destroy(struct pci_msix *msix) LOCK_UNCHECKED
{
    if (msix == NULL)
        return;
    for (uint16_t i = 0; i < msix->count; i++)
        interrupts_msi_destroy(msix->interrupts, msix->entries[i].vector);
    lock_finish(&msix->lock);
    free(msix);
}

uint16_t pci_msix_vector_count(const struct pci_msix *msix)
{
    return msix->count;
}

static bool is_open_locked(const struct pci_msix *msix, const struct msix_entry *entry)
    REQUIRES(&msix->lock)
{
    return msix->is_enabled && !msix->is_masked &&
           (entry->words[WORD_CONTROL] & CONTROL_MASKED) == 0;
}

/* After anything that may have opened the entry. */
static struct err *entry_update_locked(struct pci_msix *msix, struct msix_entry *entry)
    REQUIRES(&msix->lock)
{
    if (!is_open_locked(msix, entry))
        return NULL;
    uint64_t address = (uint64_t)entry->words[WORD_UPPER] << 32 | entry->words[WORD_ADDRESS];
    TRY(interrupts_msi_set(msix->interrupts, entry->vector, address, entry->words[WORD_DATA]));
    if (entry->is_pending) {
        entry->is_pending = false;
        interrupts_msi_fire(msix->interrupts, entry->vector);
    }
    return NULL;
}

/* The guest's register writes have nobody to report to. */
static void entry_update_or_log_locked(struct pci_msix *msix, struct msix_entry *entry)
    REQUIRES(&msix->lock)
{
    struct err *err = entry_update_locked(msix, entry);

    if (err != NULL)
        log_err(LOG_ERROR, "interrupt not routed", err);
}

void pci_msix_fire(struct pci_msix *msix, uint16_t vector)
{
    if (vector >= msix->count)
        return;
    lock_acquire(&msix->lock);
    struct msix_entry *entry = &msix->entries[vector];
    if (is_open_locked(msix, entry))
        interrupts_msi_fire(msix->interrupts, entry->vector);
    else if (msix->is_enabled)
        entry->is_pending = true;
    lock_release(&msix->lock);
}

void pci_msix_set_control(struct pci_msix *msix, bool is_enabled, bool is_masked)
{
    lock_acquire(&msix->lock);
    if (msix->is_enabled != is_enabled || msix->is_masked != is_masked) {
        msix->is_enabled = is_enabled;
        msix->is_masked = is_masked;
        for (uint16_t i = 0; i < msix->count; i++)
            entry_update_or_log_locked(msix, &msix->entries[i]);
    }
    lock_release(&msix->lock);
}

/* The table is accessed in whole words or pairs of them; other accesses are undefined (PCI 3.0,
 * 6.8.2), and read as zero here. */
void pci_msix_table_read(struct pci_msix *msix, uint64_t offset, uint8_t *out_data, size_t len)
{
    memset(out_data, 0, len);
    if (offset % 4 != 0 || len % 4 != 0)
        return;
    lock_acquire(&msix->lock);
    for (size_t at = 0; at < len; at += 4) {
        uint64_t index = (offset + at) / PCI_MSIX_ENTRY_BYTES;
        if (index < msix->count)
            memcpy(&out_data[at], &msix->entries[index].words[(offset + at) / 4 % ENTRY_WORDS], 4);
    }
    lock_release(&msix->lock);
}

static void word_write_locked(struct pci_msix *msix, uint64_t offset, uint32_t value)
    REQUIRES(&msix->lock)
{
    uint64_t index = offset / PCI_MSIX_ENTRY_BYTES;

    if (index >= msix->count)
        return;
    struct msix_entry *entry = &msix->entries[index];
    uint64_t word = offset / 4 % ENTRY_WORDS;
    entry->words[word] = word == WORD_CONTROL ? value & CONTROL_MASKED : value;
    entry_update_or_log_locked(msix, entry);
}

void pci_msix_table_write(struct pci_msix *msix, uint64_t offset, const uint8_t *data, size_t len)
{
    if (offset % 4 != 0 || len % 4 != 0)
        return;
    lock_acquire(&msix->lock);
    for (size_t at = 0; at < len; at += 4) {
        uint32_t value;
        memcpy(&value, &data[at], 4);
        word_write_locked(msix, offset + at, value);
    }
    lock_release(&msix->lock);
}

void pci_msix_pending_read(struct pci_msix *msix, uint64_t offset, uint8_t *out_data, size_t len)
{
    memset(out_data, 0, len);
    lock_acquire(&msix->lock);
    for (uint64_t i = offset * 8; i < (offset + len) * 8 && i < msix->count; i++) {
        if (msix->entries[i].is_pending)
            out_data[i / 8 - offset] |= (uint8_t)(1u << (i % 8));
    }
    lock_release(&msix->lock);
}

void pci_msix_reset(struct pci_msix *msix)
{
    lock_acquire(&msix->lock);
    msix->is_enabled = false;
    msix->is_masked = false;
    for (uint16_t i = 0; i < msix->count; i++)
        entry_clear(&msix->entries[i]);
    lock_release(&msix->lock);
}

static struct err *entries_save_locked(struct pci_msix *msix, Ferry__PciMsixState *state)
    REQUIRES(&msix->lock)
{
    ProtobufCMessage **entries = NULL;
    struct err *err = state_repeated_create(&ferry__pci_msix_entry__descriptor, msix->count,
                                            &state->n_entries, &entries);
    state->entries = (Ferry__PciMsixEntry **)(void *)entries;
    if (err != NULL)
        return err;

    for (uint16_t i = 0; i < msix->count; i++) {
        const struct msix_entry *entry = &msix->entries[i];
        state->entries[i]->address =
            (uint64_t)entry->words[WORD_UPPER] << 32 | entry->words[WORD_ADDRESS];
        state->entries[i]->data = entry->words[WORD_DATA];
        state->entries[i]->masked = (entry->words[WORD_CONTROL] & CONTROL_MASKED) != 0;
        state->entries[i]->pending = entry->is_pending;
    }
    return NULL;
}

struct err *pci_msix_save(struct pci_msix *msix, Ferry__PciMsixState **out_state)
{
    Ferry__PciMsixState *state = NULL;
    TRY(STATE_MESSAGE_CREATE(&ferry__pci_msix_state__descriptor, &state));

    lock_acquire(&msix->lock);
    state->enabled = msix->is_enabled;
    state->masked = msix->is_masked;
    struct err *err = entries_save_locked(msix, state);
    lock_release(&msix->lock);
    return state_message_finish(err, &state->base, (ProtobufCMessage **)(void *)out_state);
}

struct err *pci_msix_validate(const struct pci_msix *msix, const Ferry__PciMsixState *state)
{
    if (state == NULL)
        return err_new(ERR_INVALID, "MSI-X state is missing");
    if (state->n_entries != msix->count)
        return err_new(ERR_INVALID, "%zu MSI-X vectors; the function has %u", state->n_entries,
                       msix->count);
    return NULL;
}

void pci_msix_apply(struct pci_msix *msix, const Ferry__PciMsixState *state)
{
    lock_acquire(&msix->lock);
    msix->is_enabled = state->enabled;
    msix->is_masked = state->masked;
    for (uint16_t i = 0; i < msix->count; i++) {
        struct msix_entry *entry = &msix->entries[i];
        entry->words[WORD_ADDRESS] = (uint32_t)state->entries[i]->address;
        entry->words[WORD_UPPER] = (uint32_t)(state->entries[i]->address >> 32);
        entry->words[WORD_DATA] = state->entries[i]->data;
        entry->words[WORD_CONTROL] = state->entries[i]->masked ? CONTROL_MASKED : 0;
        entry->is_pending = state->entries[i]->pending;
    }
    lock_release(&msix->lock);
}

struct err *pci_msix_start(struct pci_msix *msix)
{
    struct err *err = NULL;

    lock_acquire(&msix->lock);
    for (uint16_t i = 0; i < msix->count && err == NULL; i++)
        err = entry_update_locked(msix, &msix->entries[i]);
    lock_release(&msix->lock);
    return err;
}
