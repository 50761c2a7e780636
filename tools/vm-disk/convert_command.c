/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert_command.c - see convert_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/convert_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/limits.h"
#include "storage/disk_image.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-disk/disk_progress.h"
#include "tools/vm-disk/image_file.h"
#include "tools/vm-disk/image_options.h"

#define CHUNK_BYTES (2 * MIB)
#define GRAIN_BYTES (4 * KIB) /* zeros of this size are not written */

static struct {
    struct image_options image;
    const char *from_format;
    const char *to_format;
    struct option_list folders;
    bool force;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("format", 'f', SETTINGS, from_format, "FORMAT", "qcow2",
                "of the image that is read, qcow2 or raw"),
    OPTION_TEXT("output-format", 'O', SETTINGS, to_format, "FORMAT", "qcow2",
                "of the image that is made"),
    OPTION_LIST("image-folder", 0, SETTINGS, folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
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

struct conversion {
    struct block *from; /* owned */
    struct block *to;   /* owned */
    uint8_t *chunk;     /* owned */
    uint64_t data_bytes;
};

static bool is_zero(const uint8_t *data, size_t len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

/* How far grains of one kind, zeros or not, go. */
static size_t run_of(const uint8_t *data, size_t len, bool *out_is_zero)
{
    size_t at = 0;

    *out_is_zero = is_zero(data, MIN(GRAIN_BYTES, len));
    while (at < len && is_zero(data + at, MIN(GRAIN_BYTES, len - at)) == *out_is_zero)
        at += MIN(GRAIN_BYTES, len - at);
    return at;
}

/* The new image reads as zeros, so zeros need not be written. */
static struct err *copy_chunk(struct conversion *conversion, uint64_t offset, size_t len)
{
    struct iovec iov = {conversion->chunk, len};

    TRY(block_read(conversion->from, &iov, 1, offset));
    for (size_t at = 0, run; at < len; at += run) {
        bool is_hole;
        run = run_of(conversion->chunk + at, len - at, &is_hole);
        if (is_hole)
            continue;
        iov = (struct iovec){conversion->chunk + at, run};
        TRY(block_write(conversion->to, &iov, 1, offset + at));
        conversion->data_bytes += run;
    }
    return NULL;
}

static struct err *copy_all(struct conversion *conversion, struct disk_progress *progress)
{
    uint64_t end = conversion->from->virtual_bytes;

    conversion->chunk = malloc(CHUNK_BYTES);
    if (conversion->chunk == NULL)
        return err_new(ERR_NO_MEMORY, "convert");
    for (uint64_t at = 0; at < end; at += CHUNK_BYTES) {
        TRY(disk_progress_at(progress, at));
        TRY(copy_chunk(conversion, at, (size_t)MIN(CHUNK_BYTES, end - at)));
    }
    return block_flush(conversion->to);
}

static struct err *close_all(struct conversion *conversion)
{
    struct err *err = conversion->to == NULL ? NULL : block_close(conversion->to);

    if (conversion->from != NULL)
        err_free(block_close(conversion->from)); /* nothing was written */
    free(conversion->chunk);
    return err;
}

static struct err *open_source(const char *path, struct block **out_block)
{
    struct disk_image_name name = {.path = path,
                                   .format = settings.from_format,
                                   .access = DISK_IMAGE_READ_ONLY,
                                   .folders = settings.folders.values,
                                   .folder_count = settings.folders.count};

    return disk_image_open_named(&name, out_block);
}

static void report(const char *path, const struct conversion *conversion, uint64_t bytes,
                   uint64_t ns)
{
    if (settings.json)
        program_json_print(
            json_pack("{s:o, s:s, s:I, s:I, s:I}", "image", program_json_text(path), "format",
                      settings.to_format, "virtual_bytes", (json_int_t)bytes, "data_bytes",
                      (json_int_t)conversion->data_bytes, "us", (json_int_t)(ns / 1000)));
    else
        (void)printf("converted to %s: %s of data in %s\n", path,
                     readable_bytes(conversion->data_bytes).text, readable_us(ns / 1000).text);
}

/* Into the draft, which is complete and closed when it returns. */
static struct err *fill(struct conversion *conversion, const struct image_file *file,
                        struct disk_progress *progress)
{
    struct err *err = image_file_open(file, settings.to_format, &conversion->to);

    if (err == NULL)
        err = copy_all(conversion, progress);
    struct err *close_err = close_all(conversion);
    if (err == NULL)
        return close_err;
    err_free(close_err);
    return err;
}

static struct err *run(const struct option_result *operands)
{
    struct conversion conversion = {.from = NULL};
    struct qcow_create_options options;
    struct disk_progress progress;
    struct image_file file = {.draft = NULL};

    TRY(image_options_read(&settings.image, &options));
    TRY(open_source(operands->operands[0], &conversion.from));
    options.virtual_bytes = conversion.from->virtual_bytes;
    struct err *err = image_file_create(operands->operands[1], settings.force, settings.to_format,
                                        &options, &file);
    if (err != NULL) {
        err_free(close_all(&conversion));
        return err;
    }
    disk_progress_begin(&progress, "convert", options.virtual_bytes, settings.json);
    err = fill(&conversion, &file, &progress);
    uint64_t ns = disk_progress_end(&progress);
    if (err == NULL)
        err = image_file_publish(&file);
    image_file_finish(&file);
    if (err == NULL)
        report(operands->operands[1], &conversion, options.virtual_bytes, ns);
    return err;
}

const struct program_verb convert_command = {"convert", &table, &settings, run};
