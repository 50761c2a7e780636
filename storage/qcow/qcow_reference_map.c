/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_reference_map.c - see qcow_reference_map.h.
 */
#include "storage/qcow/qcow_reference_map.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"

#define SLOTS_MIN  ((size_t)64)
#define CHUNK_MASK (QCOW_REFERENCE_CHUNK_CLUSTERS - 1)

const char *qcow_owner_name(enum qcow_owner owner)
{
    static const char *const names[] = {
        [QCOW_OWNER_NONE] = "nothing",
        [QCOW_OWNER_DATA] = "guest data",
        [QCOW_OWNER_HEADER] = "the header",
        [QCOW_OWNER_L1] = "the L1 table",
        [QCOW_OWNER_L2] = "an L2 table",
        [QCOW_OWNER_REFCOUNT_TABLE] = "the refcount table",
        [QCOW_OWNER_REFCOUNT_BLOCK] = "a refcount block",
        [QCOW_OWNER_SNAPSHOT_TABLE] = "the snapshot table",
        [QCOW_OWNER_SNAPSHOT_L1] = "the L1 table of a snapshot",
        [QCOW_OWNER_BITMAP] = "a bitmap",
    };

    return names[owner];
}

void qcow_reference_map_finish(struct qcow_reference_map *map)
{
    for (size_t i = 0; i < map->slot_count; i++)
        free(map->slots[i]);
    free(map->slots);
    *map = (struct qcow_reference_map){.slots = NULL};
}

/* The slot of a chunk, or the free one where it belongs. The table is never full. */
static size_t slot_of(const struct qcow_reference_map *map, uint64_t number)
{
    size_t mask = map->slot_count - 1;
    size_t at = (size_t)(number * 0x9e3779b97f4a7c15u >> 32) & mask;

    while (map->slots[at] != NULL && map->slots[at]->number != number)
        at = (at + 1) & mask;
    return at;
}

static bool grow(struct qcow_reference_map *map)
{
    struct qcow_reference_map grown = {.slot_count = MAX(map->slot_count * 2, SLOTS_MIN),
                                       .chunk_count = map->chunk_count};

    grown.slots = calloc(grown.slot_count, sizeof(struct qcow_reference_chunk *));
    if (grown.slots == NULL)
        return false;
    for (size_t i = 0; i < map->slot_count; i++)
        if (map->slots[i] != NULL)
            grown.slots[slot_of(&grown, map->slots[i]->number)] = map->slots[i];
    free(map->slots);
    *map = grown;
    return true;
}

static struct qcow_reference_chunk *find(const struct qcow_reference_map *map, uint64_t cluster)
{
    return map->slot_count == 0 ? NULL
                                : map->slots[slot_of(map, cluster >> QCOW_REFERENCE_CHUNK_BITS)];
}

static struct qcow_reference_chunk *find_or_add(struct qcow_reference_map *map, uint64_t cluster)
{
    uint64_t number = cluster >> QCOW_REFERENCE_CHUNK_BITS;
    struct qcow_reference_chunk *chunk = find(map, cluster);

    if (chunk != NULL)
        return chunk;
    if (map->chunk_count * 2 >= map->slot_count && !grow(map))
        return NULL;
    chunk = calloc(1, sizeof(*chunk));
    if (chunk == NULL)
        return NULL;
    chunk->number = number;
    map->slots[slot_of(map, number)] = chunk;
    map->chunk_count++;
    return chunk;
}

bool qcow_reference_map_add(struct qcow_reference_map *map, uint64_t cluster, uint32_t times,
                            enum qcow_owner owner, enum qcow_owner *out_before)
{
    struct qcow_reference_chunk *chunk = find_or_add(map, cluster);
    size_t at = cluster & CHUNK_MASK;

    if (chunk == NULL)
        return false;
    *out_before = (enum qcow_owner)chunk->owners[at];
    chunk->counts[at] =
        times > UINT32_MAX - chunk->counts[at] ? UINT32_MAX : chunk->counts[at] + times;
    chunk->owners[at] = (uint8_t)owner;
    return true;
}

uint32_t qcow_reference_map_count(const struct qcow_reference_map *map, uint64_t cluster)
{
    const struct qcow_reference_chunk *chunk = find(map, cluster);

    return chunk == NULL ? 0 : chunk->counts[cluster & CHUNK_MASK];
}

enum qcow_owner qcow_reference_map_owner(const struct qcow_reference_map *map, uint64_t cluster)
{
    const struct qcow_reference_chunk *chunk = find(map, cluster);

    return chunk == NULL ? QCOW_OWNER_NONE : (enum qcow_owner)chunk->owners[cluster & CHUNK_MASK];
}

static int compare(const void *a, const void *b)
{
    const struct qcow_reference_chunk *const *left = a, *const *right = b;

    return (*left)->number<(*right)->number ? -1 : (*left)->number>(*right)->number;
}

const struct qcow_reference_chunk **qcow_reference_map_sorted(const struct qcow_reference_map *map)
{
    const struct qcow_reference_chunk **list =
        malloc((map->chunk_count + 1) * sizeof(struct qcow_reference_chunk *));
    size_t count = 0;

    if (list == NULL)
        return NULL;
    for (size_t i = 0; i < map->slot_count; i++)
        if (map->slots[i] != NULL)
            list[count++] = map->slots[i];
    qsort((void *)list, count, sizeof(struct qcow_reference_chunk *), compare);
    return list;
}
