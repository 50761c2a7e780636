/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create_command.c - see create_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/create_command.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "storage/disk_image.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_size.h"
#include "tools/program_units.h"
#include "tools/vm-disk/held_backing.h"
#include "tools/vm-disk/image_facts.h"
#include "tools/vm-disk/image_file.h"
#include "tools/vm-disk/image_options.h"

static struct {
    struct image_options image;
    const char *format;
    const char *backing;
    const char *backing_format;
    struct option_list folders;
    bool force;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("format", 'f', SETTINGS, format, "FORMAT", "qcow2", "qcow2 or raw"),
    OPTION_TEXT("backing", 'b', SETTINGS, backing, "IMAGE", NULL,
                "show this image until something is written; named as seen from the new image"),
    OPTION_TEXT("backing-format", 'F', SETTINGS, backing_format, "FORMAT", NULL,
                "of the backing image, qcow2 or raw; must be said"),
    OPTION_LIST("image-folder", 0, SETTINGS, folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
    IMAGE_OPTION_ROWS(SETTINGS, image),
    OPTION_FLAG("force", 0, SETTINGS, force, "replace an image that is there"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk create",
    .arguments = "IMAGE [SIZE]",
    .summary = "Makes an empty image, or an overlay, which is as large as its backing image.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 2,
};

/* The backing image as this process finds it: a relative name is seen from the overlay. */
static struct err *backing_size(const char *image_path, uint64_t *out_bytes)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(held_backing_path(image_path, settings.backing, &path));
    struct disk_image_name name = {.path = path,
                                   .format = settings.backing_format,
                                   .access = DISK_IMAGE_READ_ONLY,
                                   .folders = settings.folders.values,
                                   .folder_count = settings.folders.count};
    return err_wrap(disk_image_check_named(&name, out_bytes), "backing image");
}

static struct err *read_settings(const struct option_result *operands,
                                 struct qcow_create_options *options)
{
    const char *size = operands->operand_count > 1 ? operands->operands[1] : NULL;
    bool is_qcow = false;

    TRY(image_format_check(settings.format, &is_qcow));
    TRY(image_options_read(&settings.image, options));
    if (size != NULL)
        TRY(program_size_parse("size", size, &options->virtual_bytes));
    if (settings.backing == NULL)
        return size != NULL ? NULL
                            : err_new(ERR_INVALID, "say how large the image is, as in "
                                                   "'vm-disk create disk.qcow2 10G'");
    if (!is_qcow)
        return err_new(ERR_INVALID, "a raw image can not have a backing image");
    if (settings.backing_format == NULL)
        return err_new(ERR_INVALID, "say with --backing-format what '%s' is: it is not guessed",
                       settings.backing);
    options->backing_name = settings.backing;
    options->backing_format = settings.backing_format;
    return NULL;
}

static struct err *take_backing_size(const struct option_result *operands,
                                     struct qcow_create_options *options)
{
    uint64_t backing_bytes = 0;

    if (settings.backing == NULL)
        return NULL;
    TRY(backing_size(operands->operands[0], &backing_bytes));
    if (operands->operand_count < 2)
        options->virtual_bytes = backing_bytes;
    return NULL;
}

static void report(const char *path, const struct qcow_create_options *options)
{
    if (settings.json)
        program_json_print(json_pack("{s:o, s:s, s:I}", "image", program_json_text(path), "format",
                                     settings.format, "virtual_bytes",
                                     (json_int_t)options->virtual_bytes));
    else
        (void)printf("created %s: %s, %s\n", path, settings.format,
                     readable_bytes(options->virtual_bytes).text);
}

/* The image that is replaced must not be one that the new one stands on. */
static struct err *check_layers(const struct image_file *file,
                                const struct image_chain_facts *chain)
{
    for (size_t i = 1; i < chain->count; i++) {
        CLEANUP(cleanup_fd)
        int fd = open(chain->layers[i].path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (image_file_is_old(file, fd))
            return err_new(ERR_STATE,
                           "'%s' can not be replaced by an image that stands on it; give the new "
                           "one another name",
                           file->path);
    }
    return NULL;
}

static struct err *check_not_on_itself(const struct image_file *file)
{
    struct image_folders *folders = NULL;
    struct image_chain_facts chain;

    TRY(image_folders_create(file->draft, settings.folders.values, settings.folders.count,
                             &folders));
    struct err *err = image_chain_look(file->draft, settings.format, folders, &chain);
    if (err == NULL)
        err = check_layers(file, &chain);
    image_chain_facts_finish(&chain);
    image_folders_destroy(folders);
    return err;
}

/* Would a machine open it? A backing image may lie where none is allowed. */
static struct err *check_draft(const struct image_file *file)
{
    struct disk_image_name name = {.path = file->draft,
                                   .format = settings.format,
                                   .access = DISK_IMAGE_WRITABLE,
                                   .folders = settings.folders.values,
                                   .folder_count = settings.folders.count};
    uint64_t bytes = 0;

    if (settings.backing == NULL)
        return NULL;
    TRY(disk_image_check_named(&name, &bytes));
    return check_not_on_itself(file);
}

static struct err *hold_backing(const struct image_file *file, struct held_layers **out_held)
{
    struct held_backing backing = {.image = file->path,
                                   .backing = settings.backing,
                                   .format = settings.backing_format,
                                   .folders = &settings.folders};

    return settings.backing == NULL ? NULL : held_backing_take(&backing, out_held);
}

static struct err *run(const struct option_result *operands)
{
    CLEANUP(cleanup_held_layers) struct held_layers *held = NULL;
    struct qcow_create_options options = {.virtual_bytes = 0};
    struct image_file file = {.draft = NULL};

    program_check_usage(read_settings(operands, &options));
    TRY(take_backing_size(operands, &options));
    TRY(image_file_create(operands->operands[0], settings.force, -1, settings.format, &options,
                          &file));
    struct err *err = hold_backing(&file, &held);
    if (err == NULL)
        err = check_draft(&file);
    if (err == NULL)
        err = image_file_publish(&file);
    image_file_finish(&file);
    if (err == NULL)
        report(operands->operands[0], &options);
    return err;
}

const struct program_verb create_command = {"create", &table, &settings, run};
