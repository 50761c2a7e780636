/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_index.c - see layer_index.h.
 *
 * Leaves hang in groups of 1024, so that a huge disk of which little is used needs no huge array.
 */
#include "storage/layer_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"

#define GROUP_LEAVES 1024u
#define ROW_FLAG     LAYER_NUMBER_END /* of a cluster's number: the rest is a row */
#define NO_LEAF      UINT64_MAX

struct layer_leaf_group {
    struct layer_leaf *leaves[GROUP_LEAVES]; /* owned; NULL: not made */
    unsigned count;                          /* of those that are; a group without any is freed */
};

struct err *layer_index_init(struct layer_index *index, uint64_t virtual_bytes, size_t bytes_max)
{
    uint64_t leaf_count = divide_up(virtual_bytes, (uint64_t)1 << LAYER_LEAF_BITS);

    *index = (struct layer_index){
        .leaf_count = leaf_count,
        .group_count = (size_t)divide_up(leaf_count, GROUP_LEAVES),
        .bytes_max = bytes_max,
    };
    index->groups = calloc(index->group_count + 1, sizeof(struct layer_leaf_group *));
    if (index->groups == NULL)
        return err_new(ERR_NO_MEMORY, "index of a disk's layers");
    return NULL;
}

static size_t leaf_bytes(const struct layer_leaf *leaf)
{
    return sizeof(*leaf) + leaf->row_capacity * sizeof(leaf->rows[0]);
}

static struct layer_leaf **place_of(struct layer_index *index, uint64_t number)
{
    struct layer_leaf_group *group = index->groups[number / GROUP_LEAVES];

    return group == NULL ? NULL : &group->leaves[number % GROUP_LEAVES];
}

static void drop(struct layer_index *index, uint64_t number)
{
    struct layer_leaf_group **group = &index->groups[number / GROUP_LEAVES];
    struct layer_leaf **place = &(*group)->leaves[number % GROUP_LEAVES];

    index->bytes -= leaf_bytes(*place);
    free((*place)->rows);
    free(*place);
    *place = NULL;
    if (--(*group)->count == 0) {
        free(*group);
        *group = NULL;
    }
}

void layer_index_clear(struct layer_index *index)
{
    for (uint64_t number = 0; number < index->leaf_count && index->groups != NULL; number++) {
        struct layer_leaf **place = place_of(index, number);
        if (place == NULL)
            number |= GROUP_LEAVES - 1;
        else if (*place != NULL)
            drop(index, number);
    }
}

void layer_index_finish(struct layer_index *index)
{
    layer_index_clear(index);
    free(index->groups);
    *index = (struct layer_index){0};
}

/* The next leaf at or after the hand that exists, once round; steps over groups without any. */
static uint64_t next_leaf(struct layer_index *index)
{
    for (uint64_t steps = 0; steps < 2 * (index->group_count + GROUP_LEAVES); steps++) {
        uint64_t at = index->hand >= index->leaf_count ? 0 : index->hand;
        struct layer_leaf **place = place_of(index, at);
        if (place == NULL) {
            index->hand = (at / GROUP_LEAVES + 1) * GROUP_LEAVES;
            continue;
        }
        index->hand = at + 1;
        if (*place != NULL)
            return at;
    }
    return NO_LEAF;
}

/* Drops leaves, but for `kept`, until a quarter of what is allowed is free: seldom, then. */
static void make_room(struct layer_index *index, uint64_t kept)
{
    size_t wanted = index->bytes_max - index->bytes_max / 4;

    /* Two turns: the first may find all of them used of late. */
    for (uint64_t looks = 0; looks < 2 * index->leaf_count && index->bytes > wanted; looks++) {
        uint64_t at = next_leaf(index);
        if (at == NO_LEAF)
            return;
        struct layer_leaf **place = place_of(index, at);
        if (at == kept)
            continue;
        if ((*place)->is_recent)
            (*place)->is_recent = false;
        else
            drop(index, at);
    }
}

static struct err *make_leaf(struct layer_index *index, uint64_t number,
                             struct layer_leaf **out_leaf)
{
    struct layer_leaf_group **group = &index->groups[number / GROUP_LEAVES];

    struct layer_leaf *leaf = calloc(1, sizeof(*leaf));
    if (leaf != NULL && *group == NULL)
        *group = calloc(1, sizeof(**group));
    if (leaf == NULL || *group == NULL) {
        free(leaf);
        return err_new(ERR_NO_MEMORY, "index of a disk's layers");
    }
    (*group)->leaves[number % GROUP_LEAVES] = leaf;
    (*group)->count++;
    index->bytes += leaf_bytes(leaf);
    *out_leaf = leaf;
    return NULL;
}

struct err *layer_index_leaf(struct layer_index *index, uint64_t offset,
                             struct layer_leaf **out_leaf)
{
    uint64_t number = offset >> LAYER_LEAF_BITS;

    if (index->bytes > index->bytes_max)
        make_room(index, number);
    struct layer_leaf **place = place_of(index, number);
    struct layer_leaf *leaf = place == NULL ? NULL : *place;
    if (leaf == NULL)
        TRY(make_leaf(index, number, &leaf));
    leaf->is_recent = true;
    *out_leaf = leaf;
    return NULL;
}

/* A row for a cluster that had one number for all. */
static struct err *make_row(struct layer_index *index, struct layer_leaf *leaf, unsigned cluster)
{
    if (leaf->row_count == leaf->row_capacity) {
        uint16_t capacity = leaf->row_capacity == 0 ? 4 : (uint16_t)(leaf->row_capacity * 2);
        void *rows = realloc(leaf->rows, capacity * sizeof(leaf->rows[0]));
        if (rows == NULL)
            return err_new(ERR_NO_MEMORY, "index of a disk's layers");
        leaf->rows = rows;
        index->bytes += (size_t)(capacity - leaf->row_capacity) * sizeof(leaf->rows[0]);
        leaf->row_capacity = capacity;
    }
    for (unsigned i = 0; i < LAYER_CLUSTER_UNITS; i++)
        leaf->rows[leaf->row_count][i] = leaf->clusters[cluster];
    leaf->clusters[cluster] = (uint16_t)(ROW_FLAG | leaf->row_count++);
    return NULL;
}

/* The last row moves to the place of the one that is given up. */
static void give_up_row(struct layer_leaf *leaf, unsigned row)
{
    unsigned last = --leaf->row_count;

    if (row == last)
        return;
    memcpy(leaf->rows[row], leaf->rows[last], sizeof(leaf->rows[0]));
    for (unsigned cluster = 0; cluster < LAYER_LEAF_CLUSTERS; cluster++) {
        if (leaf->clusters[cluster] == (ROW_FLAG | last))
            leaf->clusters[cluster] = (uint16_t)(ROW_FLAG | row);
    }
}

static void set_whole(struct layer_leaf *leaf, unsigned cluster, uint16_t number)
{
    uint16_t old = leaf->clusters[cluster];

    leaf->clusters[cluster] = number;
    if ((old & ROW_FLAG) != 0)
        give_up_row(leaf, old & ~ROW_FLAG);
}

struct err *layer_leaf_set(struct layer_index *index, struct layer_leaf *leaf, unsigned first,
                           unsigned count, uint16_t number)
{
    while (count > 0) {
        unsigned cluster = first / LAYER_CLUSTER_UNITS, unit = first % LAYER_CLUSTER_UNITS;
        unsigned part = MIN(count, LAYER_CLUSTER_UNITS - unit);
        bool has_row = (leaf->clusters[cluster] & ROW_FLAG) != 0;
        first += part;
        count -= part;
        if (part == LAYER_CLUSTER_UNITS) {
            set_whole(leaf, cluster, number);
            continue;
        }
        if (!has_row && leaf->clusters[cluster] == number)
            continue;
        if (!has_row)
            TRY(make_row(index, leaf, cluster));
        uint16_t *row = leaf->rows[leaf->clusters[cluster] & ~ROW_FLAG];
        for (unsigned i = 0; i < part; i++)
            row[unit + i] = number;
    }
    return NULL;
}

static uint16_t number_at(const struct layer_leaf *leaf, unsigned unit)
{
    uint16_t number = leaf->clusters[unit / LAYER_CLUSTER_UNITS];

    return (number & ROW_FLAG) == 0 ? number
                                    : leaf->rows[number & ~ROW_FLAG][unit % LAYER_CLUSTER_UNITS];
}

uint16_t layer_leaf_get(const struct layer_leaf *leaf, unsigned unit, unsigned count,
                        unsigned *out_run)
{
    uint16_t number = number_at(leaf, unit);
    unsigned run = 1;

    while (run < count && number_at(leaf, unit + run) == number) {
        bool is_whole = (unit + run) % LAYER_CLUSTER_UNITS == 0 &&
                        leaf->clusters[(unit + run) / LAYER_CLUSTER_UNITS] == number;
        run += is_whole ? LAYER_CLUSTER_UNITS : 1;
    }
    *out_run = MIN(run, count);
    return number;
}
