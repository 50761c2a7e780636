/* SPDX-License-Identifier: Apache-2.0 */
/*
 * info_command.c - see info_command.h. Tested by: tests/disk
 */
#include "tools/vm-disk/info_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checked_math.h"
#include "tools/program_json.h"
#include "tools/program_units.h"
#include "tools/vm-disk/image_facts.h"

static struct {
    const char *format;
    struct option_list folders;
    bool json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("format", 'f', SETTINGS, format, "FORMAT", "qcow2", "qcow2 or raw"),
    OPTION_LIST("image-folder", 0, SETTINGS, folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk info",
    .arguments = "IMAGE",
    .summary = "Shows an image and those that it stands on; it may be in use.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

struct feature {
    const char *name;
    bool (*has)(const struct qcow_header *header);
};

static bool has_extended_l2(const struct qcow_header *header)
{
    return (header->incompatible & QCOW_INCOMPATIBLE_EXTENDED_L2) != 0;
}

static bool has_lazy_refcounts(const struct qcow_header *header)
{
    return (header->compatible & QCOW_COMPATIBLE_LAZY_REFCOUNTS) != 0;
}

static bool is_zstd(const struct qcow_header *header)
{
    return header->compression == QCOW_COMPRESSION_ZSTD;
}

static bool is_dirty(const struct qcow_header *header)
{
    return (header->incompatible & QCOW_INCOMPATIBLE_DIRTY) != 0;
}

static bool is_corrupt(const struct qcow_header *header)
{
    return (header->incompatible & QCOW_INCOMPATIBLE_CORRUPT) != 0;
}

static const struct feature features[] = {
    {"extended-l2", has_extended_l2},
    {"lazy-refcounts", has_lazy_refcounts},
    {"zstd", is_zstd},
    {"bitmaps", qcow_header_has_bitmaps},
    {"dirty", is_dirty},
    {"corrupt", is_corrupt},
};

static json_t *qcow_json(const struct qcow_header *header)
{
    json_t *names = json_array();

    for (size_t i = 0; i < ARRAY_COUNT(features); i++)
        if (features[i].has(header))
            json_array_append_new(names, json_string(features[i].name));
    json_t *object = json_pack("{s:i, s:I, s:i, s:i, s:o}", "version", (int)header->version,
                               "cluster_bytes", (json_int_t)1 << header->cluster_bits,
                               "refcount_bits", 1 << header->refcount_order, "snapshots",
                               (int)header->snapshot_count, "features", names);
    if (object != NULL && header->backing_name[0] != '\0') {
        json_object_set_new(object, "backing", program_json_text(header->backing_name));
        json_object_set_new(object, "backing_format", program_json_text(header->backing_format));
    }
    return object;
}

static json_t *layer_json(const struct image_facts *facts)
{
    json_t *object = json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:b, s:b}", "image", program_json_text(facts->path), "format",
        facts->is_qcow ? "qcow2" : "raw", "virtual_bytes", (json_int_t)facts->virtual_bytes,
        "file_bytes", (json_int_t)facts->file_bytes, "host_bytes", (json_int_t)facts->host_bytes,
        "sealed", facts->is_sealed, "in_use", facts->is_written);
    if (object != NULL && facts->is_qcow)
        json_object_set_new(object, "qcow2", qcow_json(&facts->header));
    return object;
}

static void print_qcow(const struct qcow_header *header)
{
    (void)printf("  version:    %u, clusters of %s, refcounts of %u bits\n", header->version,
                 readable_bytes((uint64_t)1 << header->cluster_bits).text,
                 1u << header->refcount_order);
    const char *separator = "  features:   ";
    for (size_t i = 0; i < ARRAY_COUNT(features); i++) {
        if (!features[i].has(header))
            continue;
        (void)printf("%s%s", separator, features[i].name);
        separator = ", ";
    }
    (void)printf("%s", separator[0] == ',' ? "\n" : "");
    if (header->snapshot_count > 0)
        (void)printf("  snapshots:  %" PRIu32 " inside the image\n", header->snapshot_count);
}

static void print_layer(const struct image_facts *facts, size_t depth)
{
    (void)printf("%s%s\n", depth == 0 ? "" : "on ", facts->path);
    (void)printf("  format:     %s%s%s\n", facts->is_qcow ? "qcow2" : "raw",
                 facts->is_sealed ? ", sealed: nobody writes it any more" : "",
                 facts->is_written ? ", in use: somebody is writing it" : "");
    (void)printf("  size:       %s, %s of it on the host\n",
                 readable_bytes(facts->virtual_bytes).text, readable_bytes(facts->host_bytes).text);
    if (facts->is_qcow)
        print_qcow(&facts->header);
}

static void report(const struct image_chain_facts *chain, const struct err *err)
{
    json_t *list = json_array();

    for (size_t i = 0; i < chain->count; i++) {
        if (settings.json)
            json_array_append_new(list, layer_json(&chain->layers[i]));
        else
            print_layer(&chain->layers[i], i);
    }
    if (!settings.json) {
        json_decref(list);
        return;
    }
    json_t *object = json_pack("{s:o}", "layers", list);
    if (object != NULL && err != NULL)
        json_object_set_new(object, "error", program_json_text(err_message(err)));
    program_json_print(object);
}

static struct err *run(const struct option_result *operands)
{
    struct image_folders *folders = NULL;
    struct image_chain_facts chain;

    TRY(image_folders_create(operands->operands[0], settings.folders.values, settings.folders.count,
                             &folders));
    struct err *err = image_chain_look(operands->operands[0], settings.format, folders, &chain);
    if (chain.count > 0)
        report(&chain, err);
    image_chain_facts_finish(&chain);
    image_folders_destroy(folders);
    return err;
}

const struct program_verb info_command = {"info", &table, &settings, run};
