/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_options.c - see image_options.h. Tested by: tests/disk
 */
#include "tools/vm-disk/image_options.h"

#include <string.h>

#include "base/checked_math.h"
#include "tools/program_size.h"

struct err *image_compression_parse(const char *text, enum qcow_compression *out_compression)
{
    if (strcmp(text, "zlib") == 0 || strcmp(text, "deflate") == 0)
        *out_compression = QCOW_COMPRESSION_DEFLATE;
    else if (strcmp(text, "zstd") == 0)
        *out_compression = QCOW_COMPRESSION_ZSTD;
    else
        return err_new(ERR_INVALID, "compression '%s' is neither zlib nor zstd", text);
    return NULL;
}

static struct err *parse_preallocation(const char *text, enum qcow_preallocation *out_how)
{
    static const char *const names[] = {
        [QCOW_PREALLOCATION_OFF] = "off",
        [QCOW_PREALLOCATION_METADATA] = "metadata",
        [QCOW_PREALLOCATION_FALLOC] = "falloc",
        [QCOW_PREALLOCATION_FULL] = "full",
    };

    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out_how = (enum qcow_preallocation)i;
            return NULL;
        }
    }
    return err_new(ERR_INVALID, "preallocation '%s' is none of off, metadata, falloc, full", text);
}

struct err *image_options_read(const struct image_options *options,
                               struct qcow_create_options *out_options)
{
    struct qcow_create_options read = {
        .version = (uint32_t)options->version,
        .refcount_bits = (uint32_t)options->refcount_bits,
        .has_extended_l2 = options->extended_l2 || options->is_static,
        .has_lazy_refcounts = options->lazy_refcounts,
        .is_static = options->is_static,
    };
    uint64_t cluster_bytes;

    TRY(program_size_parse("cluster size", options->cluster_size, &cluster_bytes));
    if (cluster_bytes < 512 || cluster_bytes > (2u << 20) ||
        (cluster_bytes & (cluster_bytes - 1)) != 0)
        return err_new(ERR_INVALID, "cluster size '%s' is not a power of two from 512 to 2M",
                       options->cluster_size);
    if (!is_power_of_two(options->refcount_bits))
        return err_new(ERR_INVALID, "refcounts of %llu bits: it must be 1, 2, 4, 8, 16, 32 or 64",
                       (unsigned long long)options->refcount_bits);
    read.cluster_bits =
        options->is_static ? QCOW_STATIC_CLUSTER_BITS : (uint32_t)__builtin_ctzll(cluster_bytes);
    TRY(image_compression_parse(options->compression, &read.compression));
    TRY(parse_preallocation(options->preallocation, &read.preallocation));
    *out_options = read;
    return NULL;
}
