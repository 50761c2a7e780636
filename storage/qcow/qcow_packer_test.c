/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/limits.h"
#include "base/unit_test.h"
#include "storage/qcow/qcow_compressed.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_image.h"
#include "storage/qcow/qcow_packer.h"
#include "storage/testing/host_file_fake.h"
#include "storage/testing/qcow_checker.h"

#define CLUSTERS 24u

struct kept {
    void *bytes; /* owned */
    size_t len;
};

static size_t cluster_bytes;
static uint8_t *expected, *packed; /* the whole disk; one cluster */

static struct block *make(struct qcow_create_options options, struct host_file **out_file)
{
    struct block *block = NULL;

    cluster_bytes = (size_t)1 << options.cluster_bits;
    options.version = 3;
    options.virtual_bytes = CLUSTERS * cluster_bytes;
    expected = calloc(CLUSTERS, cluster_bytes);
    packed = malloc(cluster_bytes);
    assert_true(expected != NULL && packed != NULL);
    ASSERT_OK(host_file_fake_create(NULL, 0, out_file));
    ASSERT_OK(qcow_create(*out_file, &options));
    ASSERT_OK(qcow_image_open(*out_file, false, &block));
    return block;
}

static void finish(void)
{
    free(expected);
    free(packed);
}

/* Text that packs to some share of the cluster, which grows with the number. */
static size_t pack_cluster(unsigned number, enum qcow_compression compression)
{
    uint8_t *data = expected + number * cluster_bytes;
    size_t noise = cluster_bytes / 32 * (number % 28), len = 0;

    for (size_t i = 0; i < cluster_bytes; i++)
        data[i] = i < noise ? (uint8_t)rand() : (uint8_t)(number + i / 64);
    ASSERT_OK(
        qcow_compressed_pack(compression, data, cluster_bytes, packed, cluster_bytes - 512, &len));
    return len;
}

static struct err *write_plain(struct block *block, unsigned number)
{
    struct iovec iov = {expected + number * cluster_bytes, cluster_bytes};

    return block_write(block, &iov, 1, number * cluster_bytes);
}

/* Packed, or plain when it does not pack. */
static struct err *write_cluster(struct qcow_packer *packer, struct block *block, unsigned number,
                                 enum qcow_compression compression)
{
    size_t len = pack_cluster(number, compression);

    if (!qcow_packer_is_worth(block, len))
        return write_plain(block, number);
    return qcow_packer_write(packer, block, number * cluster_bytes, packed, len);
}

static void expect_content(struct block *block)
{
    uint8_t *data = malloc(cluster_bytes);
    struct iovec iov = {data, cluster_bytes};

    for (unsigned i = 0; i < CLUSTERS; i++) {
        ASSERT_OK(block_read(block, &iov, 1, i * cluster_bytes));
        assert_memory_equal(data, expected + i * cluster_bytes, cluster_bytes);
    }
    free(data);
}

static void expect_sound(const struct kept *kept, bool may_leak)
{
    struct qcow_verdict verdict = qcow_checker_run(kept->bytes, kept->len);

    if (verdict.errors != 0 || (verdict.leaks != 0 && !may_leak))
        fail_msg("%u errors, %u leaks: %s", verdict.errors, verdict.leaks, verdict.first);
}

static const struct qcow_create_options shapes[] = {
    {.cluster_bits = 10},
    {.cluster_bits = 12, .compression = QCOW_COMPRESSION_ZSTD},
    {.cluster_bits = 16},
    {.cluster_bits = 16, .refcount_bits = 1},
    {.cluster_bits = 16, .refcount_bits = 2, .compression = QCOW_COMPRESSION_ZSTD},
    {.cluster_bits = 17, .has_extended_l2 = true},
    {.cluster_bits = 21, .compression = QCOW_COMPRESSION_ZSTD},
};

TEST(packed_clusters_are_read_back_and_counted)
{
    for (size_t i = 0; i < ARRAY_COUNT(shapes); i++) {
        struct qcow_packer packer = {.at = 0};
        struct kept kept = {NULL, 0};
        struct host_file *file = NULL;
        struct block *block = make(shapes[i], &file);

        host_file_fake_keep(file, &kept.bytes, &kept.len);
        for (unsigned number = 0; number < CLUSTERS; number++)
            if (number % 5 != 4)
                ASSERT_OK(write_cluster(&packer, block, number, shapes[i].compression));
        expect_content(block);
        ASSERT_OK(block_close(block));
        expect_sound(&kept, false);

        ASSERT_OK(host_file_fake_create(kept.bytes, kept.len, &file));
        ASSERT_OK(qcow_image_open(file, true, &block));
        expect_content(block);
        ASSERT_OK(block_close(block));
        free(kept.bytes);
        finish();
    }
}

TEST(streams_share_host_clusters)
{
    struct qcow_packer packer = {.at = 0};
    struct kept kept = {NULL, 0};
    struct host_file *file = NULL;
    struct block *block = make((struct qcow_create_options){.cluster_bits = 16}, &file);

    host_file_fake_keep(file, &kept.bytes, &kept.len);
    size_t sum = 0;
    for (unsigned number = 0; number < CLUSTERS; number++) {
        size_t len = pack_cluster(number % 3, QCOW_COMPRESSION_DEFLATE);
        memcpy(expected + number * cluster_bytes, expected + number % 3 * cluster_bytes,
               cluster_bytes);
        sum += align_up(len, 512);
        ASSERT_OK(qcow_packer_write(&packer, block, number * cluster_bytes, packed, len));
    }
    ASSERT_OK(block_close(block));

    expect_sound(&kept, false);
    /* Header, refcount table and block, L1 and L2 table. */
    assert_true(kept.len <= 5 * cluster_bytes + align_up(sum, cluster_bytes));
    free(kept.bytes);
    finish();
}

TEST(overwriting_and_packing_again_gives_the_old_place_back)
{
    struct qcow_packer packer = {.at = 0};
    struct kept kept = {NULL, 0};
    struct host_file *file = NULL;
    struct block *block = make((struct qcow_create_options){.cluster_bits = 14}, &file);

    host_file_fake_keep(file, &kept.bytes, &kept.len);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned number = 0; number < CLUSTERS; number++)
            ASSERT_OK(write_cluster(&packer, block, (number * 7 + round) % CLUSTERS,
                                    QCOW_COMPRESSION_DEFLATE));
        for (unsigned number = round; number < CLUSTERS; number += 3)
            ASSERT_OK(write_plain(block, number));
        ASSERT_OK(block_flush(block));
        expect_content(block);
    }
    ASSERT_OK(block_close(block));

    expect_sound(&kept, false);
    free(kept.bytes);
    finish();
}

TEST(a_failed_write_leaves_a_sound_image)
{
    for (uint64_t ordinal = 0; ordinal < 40; ordinal++) {
        struct qcow_packer packer = {.at = 0};
        struct kept kept = {NULL, 0};
        struct host_file *file = NULL;
        struct block *block = make((struct qcow_create_options){.cluster_bits = 12}, &file);

        host_file_fake_keep(file, &kept.bytes, &kept.len);
        host_file_fake_fail(file, ordinal % 2 == 0 ? FAKE_FAULT_IO : FAKE_FAULT_SHORT_WRITE,
                            ordinal, 1);
        for (unsigned number = 0; number < CLUSTERS; number++) {
            struct err *err = write_cluster(&packer, block, number, QCOW_COMPRESSION_DEFLATE);
            if (err != NULL)
                memset(expected + number * cluster_bytes, 0, cluster_bytes);
            err_free(err);
        }
        expect_content(block);
        err_free(block_close(block));
        expect_sound(&kept, true);
        free(kept.bytes);
        finish();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_clusters_are_read_back_and_counted),
        cmocka_unit_test(streams_share_host_clusters),
        cmocka_unit_test(overwriting_and_packing_again_gives_the_old_place_back),
        cmocka_unit_test(a_failed_write_leaves_a_sound_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
