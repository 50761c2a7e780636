/* SPDX-License-Identifier: Apache-2.0 */
/*
 * taken_guest.c - see taken_guest.h. Tested by: take_test.c, which uses it.
 */
#include "snapshot/testing/taken_guest.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "control/control_client.h"
#include "control/guest_fake.h"
#include "control/machine_fake.h"
#include "proto/page_index.h"
#include "proto/section.h"
#include "snapshot/catalog.h"
#include "snapshot/snapshot_parts.h"

struct err *taken_guest_start(const char *disk_path, struct machine_fake **out_machine,
                              struct control_client **out_client)
{
    const struct machine_fake_config config = {
        .name = TAKEN_GUEST_NAME,
        .memory_mib = 16,
        .memory_below_4g_mib = 5,
        .filled_pages = 2500,
        .working_set_pages = 1500,
        .pages_per_second = 20000,
        .seed = 7,
        .disk_path = disk_path,
    };

    TRY(machine_fake_start(&config, out_machine));
    return machine_fake_connect(*out_machine, "test", out_client);
}

static struct err *read_page(struct snapshot_parts *parts, uint64_t page, uint8_t *out_content)
{
    struct page_location location;

    TRY(page_index_find(parts->index, page, &location));
    if (location.is_zero)
        return NULL;
    return file_read_at(parts->fds[location.file + 1], "memory", out_content, PAGE_BYTES,
                        location.file_page * PAGE_BYTES);
}

static struct err *check_memory(struct snapshot_parts *parts, const Ferry__FakeGuestState *state)
{
    uint64_t page_count = page_index_page_count(parts->index);
    CLEANUP(cleanup_free) uint8_t *memory = calloc(page_count, PAGE_BYTES);

    if (memory == NULL)
        return err_new(ERR_NO_MEMORY, "read a snapshot back");
    for (uint64_t page = 0; page < page_count; page++)
        TRY(read_page(parts, page, memory + page * PAGE_BYTES));
    return guest_fake_check(memory, page_count, state);
}

struct err *taken_guest_check(struct snapshot_store *store, const char *id, uint64_t *out_steps)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    CLEANUP(cleanup_snapshot_parts) struct snapshot_parts *parts = NULL;
    ProtobufCMessage *state = NULL;

    TRY(catalog_load(store, TAKEN_GUEST_NAME, id, &manifest));
    TRY(snapshot_parts_open(store, manifest, &parts));
    TRY(section_unpack(parts->state->sections[0], &ferry__fake_guest_state__descriptor, &state));
    struct err *err = check_memory(parts, (Ferry__FakeGuestState *)state);
    *out_steps = ((Ferry__FakeGuestState *)state)->step;
    protobuf_c_message_free_unpacked(state, NULL);
    return err;
}

struct err *taken_guest_own_pages(struct snapshot_store *store, const char *id, uint64_t *out_pages)
{
    CLEANUP(cleanup_manifest) Ferry__SnapshotManifest *manifest = NULL;
    CLEANUP(cleanup_snapshot_parts) struct snapshot_parts *parts = NULL;
    uint64_t pages = 0;

    TRY(catalog_load(store, TAKEN_GUEST_NAME, id, &manifest));
    TRY(snapshot_parts_open(store, manifest, &parts));
    for (uint64_t page = 0; page < page_index_page_count(parts->index); page++) {
        struct page_location location;
        TRY(page_index_find(parts->index, page, &location));
        pages += !location.is_zero && location.file == manifest->n_page_files - 1;
    }
    *out_pages = pages;
    return NULL;
}
