/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert_command.c - see convert_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/convert_command.h"

#include <stdio.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-disk/disk_copy.h"
#include "tools/vm-disk/disk_progress.h"
#include "tools/vm-disk/disk_source.h"
#include "tools/vm-disk/image_file.h"
#include "tools/vm-disk/image_options.h"

/* Zeros of the first size in a raw image, and of a qcow2 image's clusters, but at most of the
 * second, are not written. */
#define GRAIN_BYTES_RAW (4 * KIB)
#define GRAIN_BYTES_MAX (64 * KIB)

static struct {
    struct disk_source source;
    struct image_options image;
    const char *output_format;
    const char *compress;
    uint64_t threads;
    bool force;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    DISK_SOURCE_ROWS(SETTINGS, source),
    OPTION_TEXT("output-format", 'O', SETTINGS, output_format, "FORMAT", "qcow2",
                "of the image that is made, qcow2 or raw"),
    OPTION_TEXT("compress", 'c', SETTINGS, compress, "TYPE", NULL,
                "compress each cluster: zlib, which everybody reads, or zstd, which is quicker"),
    OPTION_NUMBER("threads", 0, SETTINGS, threads, "N", 0, DISK_COPY_THREADS_MAX, 0,
                  "that read and compress; 0: one for each CPU"),
    IMAGE_OPTION_ROWS(SETTINGS, image),
    OPTION_FLAG("force", 0, SETTINGS, force, "replace an image that is there"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk convert",
    .arguments = "IMAGE OUTPUT",
    .summary = "Copies what a guest would read into a new image that depends on no other.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 2,
    .operands_max = 2,
};

static unsigned thread_count(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (settings.threads != 0)
        return (unsigned)settings.threads;
    return (unsigned)MIN(MAX(cpus, 1L), (long)DISK_COPY_THREADS_MAX);
}

/* What a write to an unused part of the new image allocates. */
static uint64_t unit_of(bool is_qcow, const struct qcow_create_options *options)
{
    uint64_t cluster_bytes = (uint64_t)1 << options->cluster_bits;

    if (settings.compress != NULL)
        return cluster_bytes;
    if (!is_qcow)
        return GRAIN_BYTES_RAW;
    if (options->has_extended_l2)
        cluster_bytes /= 32;
    return MIN(cluster_bytes, GRAIN_BYTES_MAX);
}

static struct err *read_options(bool *out_is_qcow, struct qcow_create_options *out_options)
{
    TRY(image_format_check(settings.output_format, out_is_qcow));
    if (settings.compress != NULL && !*out_is_qcow)
        return err_new(ERR_INVALID, "a raw image can not be compressed");
    if (settings.compress != NULL)
        settings.image.compression = settings.compress;
    return image_options_read(&settings.image, out_options);
}

/* Into the draft, which is complete and closed when it returns. */
static struct err *fill(const struct image_file *file, struct disk_copy *copy,
                        struct disk_copy_result *out_result)
{
    struct image_layer target;

    TRY(image_file_open(file, settings.output_format, &target));
    copy->target = target.block;
    struct err *err = disk_copy_run(copy, out_result);
    struct err *close_err = block_close(target.block);
    if (err == NULL)
        return close_err;
    err_free(close_err);
    return err;
}

static void report(const char *path, uint64_t virtual_bytes, const struct disk_copy_result *result,
                   uint64_t ns)
{
    if (settings.json) {
        program_json_print(json_pack(
            "{s:o, s:s, s:I, s:I, s:I, s:I, s:I}", "image", program_json_text(path), "format",
            settings.output_format, "virtual_bytes", (json_int_t)virtual_bytes, "data_bytes",
            (json_int_t)result->data_bytes, "packed_bytes", (json_int_t)result->packed_bytes,
            "stream_bytes", (json_int_t)result->stream_bytes, "us", (json_int_t)(ns / 1000)));
        return;
    }
    (void)printf("converted to %s: %s of data in %s", path, readable_bytes(result->data_bytes).text,
                 readable_us(ns / 1000).text);
    if (result->packed_bytes > 0)
        (void)printf(", %s of it compressed to %s", readable_bytes(result->packed_bytes).text,
                     readable_bytes(result->stream_bytes).text);
    (void)putchar('\n');
}

static struct err *convert(const struct image_chain *chain, const char *path, bool is_qcow,
                           const struct qcow_create_options *options)
{
    CLEANUP(image_file_finish) struct image_file file = {.draft = NULL};
    struct disk_progress progress;
    struct disk_copy_result result = {.data_bytes = 0};
    struct disk_copy copy = {
        .source = chain,
        .unit_bytes = unit_of(is_qcow, options),
        .is_packing = settings.compress != NULL,
        .compression = options->compression,
        .thread_count = thread_count(),
        .progress = &progress,
    };

    disk_progress_begin(&progress, "convert", options->virtual_bytes, settings.json);
    TRY(image_file_create(path, settings.force, chain->top.fd, settings.output_format, options,
                          &file));
    struct err *err = fill(&file, &copy, &result);
    uint64_t ns = disk_progress_end(&progress);
    if (err != NULL)
        return err;
    TRY(image_file_publish(&file));
    report(path, options->virtual_bytes, &result, ns);
    return NULL;
}

static struct err *run(const struct option_result *operands)
{
    CLEANUP(disk_chain_close) struct image_chain chain = {.stack = NULL};
    struct qcow_create_options options = {.virtual_bytes = 0};
    bool is_qcow = false;

    program_check_usage(read_options(&is_qcow, &options));
    TRY(disk_source_open(&settings.source, operands->operands[0], DISK_IMAGE_READ_ONLY, &chain));
    options.virtual_bytes = chain.top.block->virtual_bytes;
    return convert(&chain, operands->operands[1], is_qcow, &options);
}

const struct program_verb convert_command = {"convert", &table, &settings, run};
