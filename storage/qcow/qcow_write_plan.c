/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write_plan.c - see qcow_write_plan.h.
 * Tested by: qcow_image_test.c and qcow_oracle_test.c
 */
#include "storage/qcow/qcow_write_plan.h"

#include "base/checked_math.h"
#include "storage/qcow/qcow_l2_table.h"
#include "storage/qcow/qcow_read.h"

/* An extent without an L2 table can be longer than a slice; entries are changed in one. */
static void limit_to_slice_locked(const struct qcow_image *image, uint64_t offset,
                                  struct qcow_extent *extent) REQUIRES(&image->lock)
{
    uint64_t reach = image->cluster_bytes << image->l2.slice_bits;

    extent->bytes = MIN(extent->bytes, reach - (offset & (reach - 1)));
}

/* What to write and to claim, from what is there. */
static void outline(const struct qcow_image *image, struct qcow_write_plan *plan)
{
    const struct qcow_extent *extent = &plan->extent;
    bool is_packed = extent->kind == QCOW_KIND_COMPRESSED;
    bool has_place = !is_packed && extent->host_offset != 0;
    uint64_t end = plan->offset + extent->bytes;

    plan->is_in_place = extent->kind == QCOW_KIND_DATA && extent->is_copied;
    plan->is_moving = is_packed || (has_place && !extent->is_copied);
    uint64_t unit = plan->is_in_place ? 1
                    : is_packed       ? image->cluster_bytes
                                      : image->subcluster_bytes;
    plan->from = align_down(plan->offset, unit);
    plan->to = align_up(end, unit);
    plan->host = extent->host_offset - (plan->offset - plan->from);
    plan->claim =
        plan->is_moving
            ? qcow_image_claim(image, qcow_image_cluster_start(image, plan->offset),
                               align_up(end, image->cluster_bytes), QCOW_CLAIM_EXCLUSIVE)
            : qcow_image_claim(image, plan->from, plan->to,
                               plan->is_in_place ? QCOW_CLAIM_SHARED : QCOW_CLAIM_EXCLUSIVE);
}

/* Ends the plan with guest cluster boundary `end`, where the new clusters end. */
static void shorten(const struct qcow_image *image, struct qcow_write_plan *plan, uint64_t end)
{
    plan->extent.bytes = end - plan->offset;
    plan->to = end;
    plan->claim.last = qcow_image_subcluster_of(image, end - 1);
}

/* What an entry says; nothing when it became malformed since it was looked up. */
static struct qcow_cluster cluster_locked(struct qcow_image *image,
                                          const struct qcow_entries *entries, uint64_t index)
    REQUIRES(&image->lock)
{
    struct qcow_cluster cluster;

    ASSERT(index < entries->count);
    if (!qcow_map_cluster_locked(image, entries, index, &cluster))
        return (struct qcow_cluster){.data = 0};
    return cluster;
}

/* Gives extended entries their places, before there is data. */
static struct err *assign_locked(struct qcow_image *image, const struct qcow_write_plan *plan)
    REQUIRES(&image->lock)
{
    struct qcow_entries entries;

    TRY(qcow_map_entries_locked(image, plan->from, QCOW_COUNTS_NONE, &entries));
    for (uint64_t i = 0; i < plan->run.count; i++) {
        struct qcow_cluster cluster = cluster_locked(image, &entries, i);
        cluster.host_offset = (plan->run.first + i) << image->header.cluster_bits;
        cluster.is_copied = true;
        qcow_map_replace_locked(image, &entries, i, &cluster);
    }
    return NULL;
}

/* New host clusters, as many as there are side by side. */
static struct err *place_locked(struct qcow_image *image, struct qcow_write_plan *plan)
    REQUIRES(&image->lock)
{
    uint64_t first = qcow_image_cluster_of(image, plan->from);
    uint64_t wanted = qcow_image_cluster_of(image, plan->to - 1) - first + 1;

    TRY(qcow_image_take_locked(image, wanted, &plan->run));
    if (plan->run.count < wanted)
        shorten(image, plan, (first + plan->run.count) << image->header.cluster_bits);
    plan->host =
        (plan->run.first << image->header.cluster_bits) + qcow_image_in_cluster(image, plan->from);
    if (plan->is_moving || !qcow_entry_is_extended(&image->context)) {
        plan->is_taken = true;
        return NULL;
    }
    struct err *err = assign_locked(image, plan);
    if (err != NULL)
        qcow_allocator_untake(&image->allocator, &plan->run);
    return err;
}

struct err *qcow_write_plan_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                   struct qcow_write_plan *plan)
{
    do {
        *plan = (struct qcow_write_plan){.offset = offset};
        TRY(qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_READ, &plan->extent));
        limit_to_slice_locked(image, offset, &plan->extent);
        outline(image, plan);
    } while (qcow_image_wait_locked(image, &plan->claim));

    TRY(qcow_image_check_sound_locked(image));
    TRY(qcow_l2_table_own_locked(image, offset));
    if (plan->is_moving || plan->extent.host_offset == 0)
        TRY(place_locked(image, plan));
    qcow_claims_add(&image->claims, &plan->claim);
    return NULL;
}

/* Fresh clusters read as zeros already, so around data in zeros nothing needs to be written. */
static bool is_zero_around(const struct qcow_image *image, const struct qcow_write_plan *plan)
{
    enum qcow_kind kind = plan->extent.kind;

    return kind == QCOW_KIND_ZERO ||
           (kind == QCOW_KIND_UNALLOCATED && qcow_read_is_zero_below(image, plan->from));
}

bool qcow_write_plan_has_gaps(const struct qcow_image *image, const struct qcow_write_plan *plan)
{
    bool is_whole = plan->to - plan->from == plan->extent.bytes;

    return !is_whole && !(plan->run.is_fresh && is_zero_around(image, plan));
}

/* A place for what has none or no data at it, if all that is to be written comes from the guest. */
static bool try_place_locked(struct qcow_image *image, struct qcow_write_plan *plan)
    REQUIRES(&image->lock)
{
    struct qcow_l2_table table = {.host_offset = 0};
    bool is_new = plan->extent.host_offset == 0;

    struct err *err = qcow_l2_table_find_locked(image, plan->offset, &table);
    bool is_own = err == NULL && table.host_offset != 0 &&
                  !qcow_l2_table_is_shared_locked(image, &table, QCOW_COUNTS_LOADED);
    err_free(err); /* who does it without a plan meets it again */
    if (!is_own || (is_new && !qcow_allocator_is_ready(&image->allocator, &plan->run.is_fresh)) ||
        qcow_write_plan_has_gaps(image, plan))
        return false;
    if (!is_new)
        return true;
    err = place_locked(image, plan);
    bool is_placed = err == NULL;
    err_free(err);
    return is_placed;
}

bool qcow_write_plan_try_locked(struct qcow_image *image, uint64_t offset, uint64_t len,
                                struct qcow_write_plan *plan)
{
    *plan = (struct qcow_write_plan){.offset = offset};
    struct err *err = qcow_map_lookup_locked(image, offset, len, QCOW_COUNTS_LOADED, &plan->extent);
    bool is_known = err == NULL;
    err_free(err); /* who does it without a plan meets it again */
    if (!is_known || image->is_corrupt)
        return false;
    limit_to_slice_locked(image, offset, &plan->extent);
    outline(image, plan);
    if (plan->is_moving || qcow_claims_conflict(&image->claims, &plan->claim))
        return false;
    if (!plan->is_in_place && !try_place_locked(image, plan))
        return false;
    qcow_claims_add(&image->claims, &plan->claim);
    return true;
}

/* Which subclusters of the guest cluster at `start` does the plan write? */
static uint32_t written_mask(const struct qcow_image *image, const struct qcow_write_plan *plan,
                             uint64_t start)
{
    uint64_t from = MAX(plan->from, start), to = MIN(plan->to, start + image->cluster_bytes);
    unsigned first = (unsigned)((from - start) >> image->context.subcluster_bits);

    return qcow_subcluster_mask(first, (unsigned)((to - from) >> image->context.subcluster_bits));
}

struct err *qcow_write_plan_publish_locked(struct qcow_image *image,
                                           const struct qcow_write_plan *plan)
{
    struct qcow_entries entries;
    uint64_t start = qcow_image_cluster_start(image, plan->from), index = 0;
    uint64_t host = plan->host - (plan->from - start);

    TRY(qcow_map_entries_locked(image, start, QCOW_COUNTS_NONE, &entries));
    for (; start < plan->to; start += image->cluster_bytes, host += image->cluster_bytes) {
        struct qcow_cluster cluster = cluster_locked(image, &entries, index);
        if (cluster.is_compressed)
            cluster = (struct qcow_cluster){.data = 0};
        cluster.host_offset = host;
        cluster.is_copied = true;
        qcow_cluster_set_data(&cluster, written_mask(image, plan, start));
        qcow_map_replace_locked(image, &entries, index++, &cluster);
    }
    return NULL;
}

void qcow_write_plan_give_back_locked(struct qcow_image *image, const struct qcow_write_plan *plan)
{
    if (plan->is_taken)
        qcow_allocator_untake(&image->allocator, &plan->run);
}
