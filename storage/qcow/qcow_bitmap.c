/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_bitmap.c - see qcow_bitmap.h: what can be done to an image's bitmaps.
 *
 * Each operation loads all of them, changes the set in memory and saves it.
 */
#include "storage/qcow/qcow_bitmap.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "storage/host_file.h"
#include "storage/qcow/qcow_bitmap_directory.h"
#include "storage/qcow/qcow_header.h"

#define TYPE_DIRTY 1u

struct qcow_bitmap *qcow_bitmap_find(const struct qcow_bitmap_set *set, const char *name)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (strcmp(set->list[i].name, name) == 0)
            return &set->list[i];
    return NULL;
}

static bool get_bit(const struct qcow_bitmap *bitmap, uint64_t bit)
{
    return (bitmap->bits[bit / 8] >> bit % 8 & 1) != 0;
}

uint64_t qcow_bitmap_dirty_bits(const struct qcow_bitmap *bitmap)
{
    uint64_t count = 0;

    for (uint64_t i = 0; bitmap->bits != NULL && i < divide_up(bitmap->bit_count, 8); i++)
        count += (uint64_t)__builtin_popcount(bitmap->bits[i]);
    return count;
}

void qcow_bitmap_mark(struct qcow_bitmap *bitmap, uint64_t offset, uint64_t len)
{
    if (len == 0)
        return;
    uint64_t last = (offset + len - 1) >> bitmap->granularity_bits;
    for (uint64_t bit = offset >> bitmap->granularity_bits; bit <= last; bit++)
        bitmap->bits[bit / 8] |= (uint8_t)(1u << bit % 8);
    bitmap->is_changed = true;
}

struct err *qcow_bitmap_list(struct host_file *file, struct qcow_bitmap_set *out_set)
{
    struct qcow_header header;

    TRY(err_wrap(qcow_header_read(file, &header), "image '%s'", file->path));
    return qcow_bitmap_set_load(file, &header, out_set);
}

static struct err *find(const struct qcow_bitmap_set *set, const char *name,
                        struct qcow_bitmap **out_bitmap)
{
    struct qcow_bitmap *bitmap = qcow_bitmap_find(set, name);

    if (bitmap == NULL)
        return err_new(ERR_NOT_FOUND,
                       "there is no bitmap '%s'; 'vm-disk bitmap' lists those that "
                       "are",
                       name);
    *out_bitmap = bitmap;
    return NULL;
}

/* One whose bits are known. */
static struct err *find_usable(const struct qcow_bitmap_set *set, const char *name,
                               struct qcow_bitmap **out_bitmap)
{
    TRY(find(set, name, out_bitmap));
    if ((*out_bitmap)->bits == NULL)
        return err_new(ERR_STATE,
                       "bitmap '%s' was not closed properly and can not be relied on; remove it "
                       "('vm-disk bitmap --remove')",
                       name);
    return NULL;
}

static struct err *check_add(const struct qcow_bitmap_set *set, const char *name,
                             unsigned granularity_bits)
{
    if (set->virtual_bytes == 0)
        return err_new(ERR_STATE, "the disk has no bytes");
    if (name[0] == '\0' || strlen(name) > QCOW_BITMAP_NAME_MAX)
        return err_new(ERR_INVALID, "a name has 1 to %u bytes", QCOW_BITMAP_NAME_MAX);
    if (qcow_bitmap_find(set, name) != NULL)
        return err_new(ERR_STATE, "there is a bitmap of this name already");
    if (granularity_bits < QCOW_BITMAP_GRANULARITY_MIN ||
        granularity_bits > QCOW_BITMAP_GRANULARITY_MAX)
        return err_new(ERR_INVALID, "a bit stands for 512 bytes to 2 GiB");
    return qcow_bitmap_check_size(set->virtual_bytes, granularity_bits);
}

/* What a change is about. */
struct change {
    const char *name;
    const char *source;
    unsigned granularity_bits;
    bool is_enabled;
};

static struct err *add(struct qcow_bitmap_set *set, const struct change *change)
{
    unsigned granularity_bits =
        change->granularity_bits == 0 ? QCOW_BITMAP_GRANULARITY_DEFAULT : change->granularity_bits;

    TRY(check_add(set, change->name, granularity_bits));
    struct qcow_bitmap *list = realloc(set->list, ((size_t)set->count + 1) * sizeof(*list));
    if (list == NULL)
        return err_new(ERR_NO_MEMORY, "bitmap");
    set->list = list;
    struct qcow_bitmap *bitmap = &list[set->count++];
    *bitmap = (struct qcow_bitmap){
        .name = strdup(change->name),
        .flags = change->is_enabled ? QCOW_BITMAP_AUTO : 0,
        .type = TYPE_DIRTY,
        .granularity_bits = (uint8_t)granularity_bits,
        .bit_count = qcow_bitmap_bit_count(set->virtual_bytes, granularity_bits),
        .is_changed = true,
    };
    bitmap->bits = calloc(1, divide_up(bitmap->bit_count, 8) + 1);
    if (bitmap->name != NULL && bitmap->bits != NULL)
        return NULL;
    return err_new(ERR_NO_MEMORY, "bitmap");
}

static struct err *take_out(struct qcow_bitmap_set *set, const struct change *change)
{
    struct qcow_bitmap *bitmap = NULL;

    TRY(find(set, change->name, &bitmap));
    free(bitmap->name);
    free(bitmap->bits);
    free(bitmap->extra);
    *bitmap = set->list[--set->count];
    return NULL;
}

static struct err *clear(struct qcow_bitmap_set *set, const struct change *change)
{
    struct qcow_bitmap *bitmap = NULL;

    TRY(find_usable(set, change->name, &bitmap));
    memset(bitmap->bits, 0, divide_up(bitmap->bit_count, 8));
    bitmap->is_changed = true;
    return NULL;
}

static struct err *enable(struct qcow_bitmap_set *set, const struct change *change)
{
    struct qcow_bitmap *bitmap = NULL;

    TRY(find_usable(set, change->name, &bitmap));
    bitmap->flags &= ~QCOW_BITMAP_AUTO;
    bitmap->flags |= change->is_enabled ? QCOW_BITMAP_AUTO : 0;
    return NULL;
}

static struct err *merge(struct qcow_bitmap_set *set, const struct change *change)
{
    struct qcow_bitmap *source = NULL, *target = NULL;

    TRY(find_usable(set, change->source, &source));
    TRY(find_usable(set, change->name, &target));
    uint64_t step = (uint64_t)1 << source->granularity_bits;
    for (uint64_t bit = 0; bit < source->bit_count; bit++)
        if (get_bit(source, bit))
            qcow_bitmap_mark(target, bit * step, MIN(step, set->virtual_bytes - bit * step));
    return NULL;
}

static struct err *change_set(struct host_file *file, const char *what,
                              struct err *(*apply)(struct qcow_bitmap_set *set,
                                                   const struct change *change),
                              const struct change *change)
{
    struct qcow_bitmap_set set = {.list = NULL};

    struct err *err = qcow_bitmap_list(file, &set);
    if (err == NULL)
        err = apply(&set, change);
    if (err == NULL)
        err = qcow_bitmap_set_save(file, &set);
    qcow_bitmap_set_finish(&set);
    return err_wrap(err, "%s bitmap '%s' of '%s'", what, change->name, file->path);
}

struct err *qcow_bitmap_add(struct host_file *file, const char *name, unsigned granularity_bits,
                            bool is_enabled)
{
    return change_set(file, "add", add,
                      &(struct change){.name = name,
                                       .granularity_bits = granularity_bits,
                                       .is_enabled = is_enabled});
}

struct err *qcow_bitmap_remove(struct host_file *file, const char *name)
{
    return change_set(file, "remove", take_out, &(struct change){.name = name});
}

struct err *qcow_bitmap_clear(struct host_file *file, const char *name)
{
    return change_set(file, "clear", clear, &(struct change){.name = name});
}

struct err *qcow_bitmap_enable(struct host_file *file, const char *name, bool is_enabled)
{
    return change_set(file, is_enabled ? "enable" : "disable", enable,
                      &(struct change){.name = name, .is_enabled = is_enabled});
}

struct err *qcow_bitmap_merge(struct host_file *file, const char *source, const char *target)
{
    return change_set(file, "merge into", merge,
                      &(struct change){.name = target, .source = source});
}
