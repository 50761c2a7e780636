/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_mutator.c - see image_mutator.h.
 * Tested by: qcow_hostile_test.c, which counts how many images are refused and how many are not.
 */
#include "storage/testing/image_mutator.h"

#include <stdbool.h>

#include "base/checked_math.h"

#define OFFSET_BITS       0x00fffffffffffe00u
#define EXTENSION_BITMAPS 0x23852875u

struct target {
    struct chance *chance;
    uint8_t *bytes;
    size_t len;
    unsigned cluster_bits;
};

/* A number in the file. */
struct place {
    uint64_t offset;
    unsigned bytes;
};

static const struct place header_fields[] = {
    {4, 4},  {8, 8},  {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8},  {48, 8},
    {56, 4}, {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 1},
};

static const struct place snapshot_fields[] = {
    {0, 8}, {8, 4}, {12, 2}, {14, 2}, {32, 4}, {36, 4}, {40, 8}, {48, 8},
};

static const struct place bitmap_fields[] = {
    {0, 8}, {8, 4}, {12, 4}, {16, 1}, {17, 1}, {18, 2}, {20, 4},
};

static bool is_inside(const struct target *target, uint64_t offset, uint64_t bytes)
{
    return range_is_within(offset, bytes, target->len);
}

static uint64_t get(const struct target *target, uint64_t offset, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes && is_inside(target, offset, bytes); i++)
        value = value << 8 | target->bytes[offset + i];
    return value;
}

static void put(struct target *target, struct place place, uint64_t value)
{
    for (unsigned i = 0; i < place.bytes && is_inside(target, place.offset, place.bytes); i++)
        target->bytes[place.offset + i] = (uint8_t)(value >> 8 * (place.bytes - 1 - i));
}

static uint64_t l1_of(const struct target *target)
{
    return get(target, 40, 8);
}

static uint64_t pick(const struct target *target, uint64_t limit)
{
    return chance_below(target->chance, MAX(limit, (uint64_t)1));
}

/* An entry of a table, near its start more often than not. */
static struct place entry_of(const struct target *target, uint64_t table, uint64_t entries)
{
    uint64_t limit = pick(target, 3) == 0 ? entries : MIN(entries, (uint64_t)6);

    return (struct place){table + pick(target, limit) * 8, 8};
}

static uint64_t some_l2(const struct target *target)
{
    struct place entry = entry_of(target, l1_of(target), get(target, 36, 4));

    return get(target, entry.offset, 8) & OFFSET_BITS;
}

static uint64_t some_block(const struct target *target)
{
    return get(target, get(target, 48, 8) + pick(target, 2) * 8, 8) & OFFSET_BITS;
}

static struct place extension_field(const struct target *target)
{
    uint64_t at = get(target, 4, 4) == 2 ? 72 : get(target, 100, 4);

    for (unsigned i = 0; i < 6 && is_inside(target, at, 8); i++) {
        if (pick(target, 3) == 0)
            return (struct place){at + 4 * pick(target, 2), 4};
        if (get(target, at, 4) == EXTENSION_BITMAPS && pick(target, 2) == 0)
            return (struct place){at + 8 + 8 * pick(target, 3), 8};
        at += 8 + align_up(get(target, at + 4, 4), 8);
    }
    return (struct place){104, 4};
}

static struct place field_of(const struct target *target, uint64_t row, const struct place *fields,
                             size_t count)
{
    struct place field = fields[pick(target, count)];

    field.offset += row;
    return field;
}

static uint64_t bitmap_directory(const struct target *target)
{
    uint64_t at = get(target, 4, 4) == 2 ? 72 : get(target, 100, 4);

    for (unsigned i = 0; i < 6 && is_inside(target, at, 8); i++) {
        if (get(target, at, 4) == EXTENSION_BITMAPS)
            return get(target, at + 24, 8);
        at += 8 + align_up(get(target, at + 4, 4), 8);
    }
    return 0;
}

static struct place some_place(const struct target *target)
{
    uint64_t cluster = (uint64_t)1 << target->cluster_bits;

    switch (pick(target, 12)) {
    case 0:
    case 1: return field_of(target, 0, header_fields, ARRAY_COUNT(header_fields));
    case 2: return extension_field(target);
    case 3: return entry_of(target, l1_of(target), get(target, 36, 4));
    case 4:
    case 5:
    case 6: return entry_of(target, some_l2(target), cluster / 8);
    case 7: return entry_of(target, get(target, 48, 8), cluster / 8);
    case 8: return (struct place){some_block(target) + pick(target, 64) * 2, 2};
    case 9:
        return field_of(target, get(target, 64, 8), snapshot_fields, ARRAY_COUNT(snapshot_fields));
    case 10: return entry_of(target, get(target, get(target, 64, 8), 8), 4); /* snapshot's L1 */
    default:
        return field_of(target, bitmap_directory(target), bitmap_fields,
                        ARRAY_COUNT(bitmap_fields));
    }
}

/* Somewhere that a pointer should not lead, most of the time. */
static uint64_t some_pointer(const struct target *target, struct place place)
{
    uint64_t cluster = (uint64_t)1 << target->cluster_bits, end = align_up(target->len, cluster);

    switch (pick(target, 12)) {
    case 0: return align_down(place.offset, cluster); /* itself */
    case 1: return l1_of(target);
    case 2: return get(target, 48, 8);
    case 3: return some_block(target);
    case 4: return some_l2(target);
    case 5: return end - cluster;
    case 6: return end;
    case 7: return end + cluster;
    case 8: return (uint64_t)1 << 56;
    case 9: return INT64_MAX & ~(cluster - 1);
    case 10: return get(target, 64, 8);
    default: return pick(target, end) & ~(uint64_t)511;
    }
}

static uint64_t some_value(const struct target *target, struct place place)
{
    static const uint64_t extremes[] = {
        0,
        1,
        2,
        0x7f,
        0xff,
        0x7fff,
        0xffff,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x100000000,
        INT64_MAX,
        (uint64_t)1 << 63,
        UINT64_MAX,
    };
    uint64_t value = get(target, place.offset, place.bytes);
    uint64_t cluster = (uint64_t)1 << target->cluster_bits;
    uint64_t flags = pick(target, 4) << 62 | pick(target, 2);

    switch (pick(target, 10)) {
    case 0: return value ^ (uint64_t)1 << pick(target, (uint64_t)place.bytes * 8);
    case 1: return extremes[pick(target, ARRAY_COUNT(extremes))];
    case 2: return value + (pick(target, 2) == 0 ? cluster : -cluster);
    case 3: return value + (pick(target, 2) == 0 ? 512 : -(uint64_t)512);
    case 4: return value + (pick(target, 2) == 0 ? 1 : UINT64_MAX);
    case 5: return value ^ flags;
    case 6: return get(target, some_place(target).offset, place.bytes);
    default:
        return some_pointer(target, place) | (pick(target, 2) == 0 ? flags : value >> 62 << 62);
    }
}

void image_mutate(struct chance *chance, uint8_t *bytes, size_t *inout_len)
{
    struct target target = {.chance = chance, .bytes = bytes, .len = *inout_len};

    if (*inout_len < 512)
        return;
    if (chance_below(chance, 24) == 0) {
        *inout_len -= chance_below(chance, *inout_len / 512) * 512;
        return;
    }
    target.cluster_bits = (unsigned)get(&target, 20, 4);
    if (target.cluster_bits < 9 || target.cluster_bits > 21)
        target.cluster_bits = 9;
    struct place place = some_place(&target);
    put(&target, place, some_value(&target, place));
}
