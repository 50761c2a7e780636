/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_parts.c - see snapshot_parts.h. Tested by: verify_test.c and restore_test.c.
 */
#include "snapshot/snapshot_parts.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

#include "base/file_io.h"
#include "base/limits.h"
#include "proto/page_index.h"
#include "proto/section.h"
#include "snapshot/snapshot_store.h"

void snapshot_parts_close(struct snapshot_parts *parts)
{
    if (parts == NULL)
        return;
    page_index_close(parts->index);
    if (parts->state != NULL)
        ferry__machine_state__free_unpacked(parts->state, NULL);
    for (size_t i = 0; i < parts->fd_count; i++)
        cleanup_fd(&parts->fds[i]);
    free(parts->fds);
    free(parts);
}

static struct err *open_part(struct snapshot_store *store, const char *machine, const char *id,
                             enum snapshot_part part, uint64_t bytes_wanted, int *out_fd)
{
    CLEANUP(cleanup_fd) int fd = -1;
    uint64_t bytes = 0;

    TRY(store_open_part(store, machine, id, part, &fd));
    TRY(file_size(fd, snapshot_part_name(part), &bytes));
    if (bytes != bytes_wanted)
        return err_new(ERR_INVALID,
                       "part '%s' of snapshot '%s' has %" PRIu64 " bytes instead of %" PRIu64,
                       snapshot_part_name(part), id, bytes, bytes_wanted);
    *out_fd = TAKE_FD(fd);
    return NULL;
}

static struct err *open_page_files(struct snapshot_store *store,
                                   const Ferry__SnapshotManifest *manifest,
                                   struct snapshot_parts *parts)
{
    for (size_t i = 0; i < manifest->n_page_files; i++) {
        const Ferry__SnapshotPageFile *file = manifest->page_files[i];
        TRY(open_part(store, manifest->machine, file->snapshot, SNAPSHOT_PART_MEMORY, file->bytes,
                      &parts->fds[parts->fd_count]));
        parts->fd_count++;
    }
    return NULL;
}

static struct err *open_index(struct snapshot_store *store, const Ferry__SnapshotManifest *manifest,
                              struct snapshot_parts *parts)
{
    const Ferry__SnapshotPart *part = manifest_part(manifest, SNAPSHOT_PART_INDEX);

    TRY(open_part(store, manifest->machine, manifest->id, SNAPSHOT_PART_INDEX, part->bytes,
                  &parts->fds[0]));
    parts->fd_count = 1;
    TRY(page_index_open(parts->fds[0], manifest->id, part->checksum, &parts->index));
    if (page_index_page_count(parts->index) != manifest_page_count(manifest) ||
        page_index_file_count(parts->index) != manifest->n_page_files)
        return err_new(ERR_INVALID, "part 'index' does not belong to the manifest");
    return NULL;
}

static struct err *read_state(struct snapshot_store *store, const Ferry__SnapshotManifest *manifest,
                              struct snapshot_parts *parts)
{
    const Ferry__SnapshotPart *part = manifest_part(manifest, SNAPSHOT_PART_STATE);
    CLEANUP(cleanup_fd) int fd = -1;
    CLEANUP(cleanup_free) uint8_t *data = malloc(part->bytes + 1);
    struct section_list *sections = NULL;

    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "read part 'state'");
    TRY(open_part(store, manifest->machine, manifest->id, SNAPSHOT_PART_STATE, part->bytes, &fd));
    TRY(file_read_at(fd, "state", data, part->bytes, 0));
    if (XXH3_64bits(data, part->bytes) == part->checksum)
        parts->state = ferry__machine_state__unpack(NULL, part->bytes, data);
    if (parts->state == NULL)
        return err_new(ERR_INVALID, "part 'state' is damaged: the checksum does not match");
    TRY(section_list_from_message(parts->state, &sections));
    section_list_destroy(sections);
    return NULL;
}

struct err *snapshot_parts_open(struct snapshot_store *store,
                                const Ferry__SnapshotManifest *manifest,
                                struct snapshot_parts **out_parts)
{
    CLEANUP(cleanup_snapshot_parts) struct snapshot_parts *parts = calloc(1, sizeof(*parts));

    if (parts == NULL)
        return err_new(ERR_NO_MEMORY, "open the parts of a snapshot");
    parts->fds = calloc(manifest->n_page_files + 1, sizeof(*parts->fds));
    if (parts->fds == NULL)
        return err_new(ERR_NO_MEMORY, "open the parts of a snapshot");
    struct err *err = open_index(store, manifest, parts);
    if (err == NULL)
        err = open_page_files(store, manifest, parts);
    if (err == NULL)
        err = read_state(store, manifest, parts);
    if (err != NULL)
        return err_wrap(err, "snapshot '%s/%s'", manifest->machine, manifest->id);
    *out_parts = TAKE_PTR(parts);
    return NULL;
}
