/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_exerciser.c - does to disk images what it is told, a command a line, for the tests here.
 *
 * Each command is answered by one line: `ok`, with what was asked for, or `error` and why.
 *
 *   create PATH OPTION=VALUE...       an empty image
 *   open PATH FORMAT rw|ro            the disk that the next commands use, with its chain
 *   write OFFSET LEN STAMP            each sector a number all over: STAMP, STAMP + 1 ...
 *   zero|unmap|discard OFFSET LEN
 *   flush | close
 *   switch PATH OVERLAY               freezes the open disk, which goes on with a new overlay
 *   merge NEWEST COUNT                sealed layers below the open disk into one
 *   snapshot create|apply|delete PATH NAME
 *   dump RAW                          all of the open disk
 *   compare RAW OFFSET LEN            does the open disk read as that file does?
 *   check PATH                        the independent checker: errors, leaks, hazards, the first
 *   view PATH SNAPSHOT BACKING RAW OFFSET LEN
 *                                     the independent reader against that file; sectors that are
 *                                     zeros and should not be are listed; `-` is none
 *
 * Tested by: tests/disk/disk_matrix_test.py
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "storage/disk_image.h"
#include "storage/host_file.h"
#include "storage/layer_merge.h"
#include "storage/qcow/qcow_create.h"
#include "storage/qcow/qcow_snapshot.h"
#include "storage/testing/planned_request.h"
#include "storage/testing/qcow_checker.h"
#include "storage/testing/sector_stamp.h"

#define WORDS_MAX       24
#define REQUEST_MAX     (4 * MIB)
#define IMAGE_BYTES_MAX (1 * GIB)
#define ZEROES_TOLD_MAX 20000u
#define LINE_BYTES_MAX  8192
#define CHUNK_BYTES     (256 * KIB)

static struct block *disk;
static uint8_t request[REQUEST_MAX];

struct words {
    char *at[WORDS_MAX];
    int count;
};

static uint64_t number(const struct words *words, int index)
{
    return index < words->count ? strtoull(words->at[index], NULL, 10) : 0;
}

static const char *text(const struct words *words, int index)
{
    return index < words->count ? words->at[index] : "";
}

static const char *option(const struct words *words, const char *key)
{
    size_t len = strlen(key);

    for (int i = 2; i < words->count; i++)
        if (strncmp(words->at[i], key, len) == 0 && words->at[i][len] == '=')
            return words->at[i] + len + 1;
    return NULL;
}

static uint64_t option_number(const struct words *words, const char *key)
{
    const char *value = option(words, key);

    return value == NULL ? 0 : strtoull(value, NULL, 10);
}

static struct err *do_create(const struct words *words)
{
    static const char *const preallocations[] = {"off", "metadata", "falloc", "full"};
    const char *path = text(words, 1), *wanted = option(words, "preallocation");
    CLEANUP(cleanup_fd) int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    struct host_file *file = NULL;
    struct qcow_create_options options = {
        .virtual_bytes = option_number(words, "size"),
        .version = (uint32_t)option_number(words, "version"),
        .cluster_bits = (uint32_t)option_number(words, "cluster_bits"),
        .refcount_bits = (uint32_t)option_number(words, "refcount_bits"),
        .has_extended_l2 = option_number(words, "extended_l2") != 0,
        .has_lazy_refcounts = option_number(words, "lazy_refcounts") != 0,
        .is_static = option_number(words, "static") != 0,
        .compression =
            option_number(words, "zstd") != 0 ? QCOW_COMPRESSION_ZSTD : QCOW_COMPRESSION_DEFLATE,
        .backing_name = option(words, "backing"),
        .backing_format = option(words, "backing_format"),
    };

    if (fd < 0)
        return err_new(ERR_IO, "create '%s'", path);
    for (unsigned i = 0; wanted != NULL && i < ARRAY_COUNT(preallocations); i++)
        if (strcmp(preallocations[i], wanted) == 0)
            options.preallocation = (enum qcow_preallocation)i;
    TRY(host_file_from_fd(TAKE_FD(fd), path, &file));
    struct err *err = qcow_create(file, &options);
    host_file_destroy(file);
    return err;
}

static struct err *do_open(const struct words *words)
{
    if (disk != NULL)
        return err_new(ERR_STATE, "a disk is open");
    return disk_image_open(
        text(words, 1), text(words, 2),
        strcmp(text(words, 3), "rw") == 0 ? DISK_IMAGE_WRITABLE : DISK_IMAGE_READ_ONLY, &disk);
}

static struct err *do_close(void)
{
    struct block *closing = disk;

    disk = NULL;
    return closing == NULL ? err_new(ERR_STATE, "no disk is open") : block_close(closing);
}

static struct err *do_write(uint64_t offset, uint64_t len, uint64_t stamp)
{
    size_t first = (size_t)(stamp * 7919 % (len + 1));
    struct iovec iovs[2] = {{request, first}, {request + first, (size_t)len - first}};

    for (uint64_t i = 0; i < len / SECTOR_BYTES; i++)
        stamp_sector(request + i * SECTOR_BYTES, stamp + i);
    /* Planned as by the engine, or split somewhere: guests hand over pieces too. */
    if (stamp % 2 == 0)
        return planned_write(disk, request, (size_t)len, offset, NULL);
    return first == 0 ? block_write(disk, iovs + 1, 1, offset) : block_write(disk, iovs, 2, offset);
}

static struct err *read_raw(int fd, uint64_t offset, size_t len, uint8_t *out_data)
{
    ssize_t got = pread(fd, out_data, len, (off_t)offset);

    if (got < 0)
        return err_new(ERR_IO, "read the raw file at %" PRIu64, offset);
    memset(out_data + got, 0, len - (size_t)got);
    return NULL;
}

static struct err *open_raw(const char *path, int *out_fd)
{
    *out_fd = open(path, O_RDONLY | O_CLOEXEC);
    return *out_fd < 0 ? err_new(ERR_IO, "open '%s'", path) : NULL;
}

static struct err *do_compare(const struct words *words)
{
    uint64_t offset = number(words, 2), end = offset + number(words, 3);
    CLEANUP(cleanup_fd) int fd = -1;
    static uint8_t expected[CHUNK_BYTES];

    TRY(open_raw(text(words, 1), &fd));
    for (size_t part; offset < end; offset += part) {
        part = (size_t)MIN(CHUNK_BYTES, end - offset);
        struct iovec iov = {request, part};
        if (offset / CHUNK_BYTES % 2 == 0)
            TRY(planned_read(disk, request, part, offset, NULL));
        else
            TRY(block_read(disk, &iov, 1, offset));
        TRY(read_raw(fd, offset, part, expected));
        for (size_t i = 0; i < part; i++)
            if (request[i] != expected[i])
                return err_new(ERR_INVALID, "byte %" PRIu64 " is 0x%02x and should be 0x%02x",
                               offset + i, request[i], expected[i]);
    }
    return NULL;
}

static struct err *do_dump(const char *path)
{
    CLEANUP(cleanup_fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_new(ERR_IO, "create '%s'", path);
    for (uint64_t at = 0, part; at < disk->virtual_bytes; at += part) {
        part = MIN((uint64_t)CHUNK_BYTES, disk->virtual_bytes - at);
        TRY(planned_read(disk, request, (size_t)part, at, NULL));
        if (pwrite(fd, request, (size_t)part, (off_t)at) != (ssize_t)part)
            return err_new(ERR_IO, "write '%s'", path);
    }
    return NULL;
}

static struct err *do_switch(const char *path, const char *overlay)
{
    TRY(disk_image_create_overlay(overlay, path, "qcow2", disk->virtual_bytes));
    return disk_image_switch(&disk, path, "qcow2", overlay);
}

static struct err *do_merge(const char *newest, unsigned count)
{
    struct disk_image_name name = {.path = newest, .format = "qcow2"};
    struct layer_merge_result result;
    unsigned gone;

    TRY(layer_merge(&name, count, NULL, &result));
    return disk_image_swap_layers(disk, newest, &gone);
}

static struct err *do_snapshot(const struct words *words)
{
    const char *kind = text(words, 1), *path = text(words, 2), *name = text(words, 3);
    struct host_file *file = NULL;
    struct err *err;

    TRY(host_file_from_fd(open(path, O_RDWR | O_CLOEXEC), path, &file));
    if (strcmp(kind, "create") == 0)
        err = qcow_snapshot_create(file, name, 1);
    else if (strcmp(kind, "apply") == 0)
        err = qcow_snapshot_apply(file, name);
    else
        err = qcow_snapshot_delete(file, name);
    host_file_destroy(file);
    return err;
}

static struct err *do_check(const struct words *words)
{
    CLEANUP(cleanup_free) void *image = NULL;
    size_t len = 0;

    TRY(file_read_all(text(words, 1), IMAGE_BYTES_MAX, &image, &len));
    struct qcow_verdict verdict = qcow_checker_run(image, len);
    (void)printf("ok %u %u %u %s\n", verdict.errors, verdict.leaks, verdict.hazards,
                 verdict.errors > 0 ? verdict.first : "-");
    return NULL;
}

struct comparison {
    struct qcow_view view;
    int backing_fd, raw_fd; /* backing_fd: -1 for none */
    unsigned zeroes;
};

/* A sector that is zeros and should not be is told; anything else that differs is an error. */
static struct err *compare_sectors(struct comparison *comparison, uint64_t offset, size_t len)
{
    static uint8_t data[CHUNK_BYTES], expected[CHUNK_BYTES], zero[SECTOR_BYTES];
    static enum qcow_sector kinds[CHUNK_BYTES / SECTOR_BYTES];

    qcow_view_read(&comparison->view, offset, len / SECTOR_BYTES, data, kinds);
    TRY(read_raw(comparison->raw_fd, offset, len, expected));
    for (size_t i = 0; i < len / SECTOR_BYTES; i++) {
        uint8_t *sector = data + i * SECTOR_BYTES;
        uint64_t at = offset + i * SECTOR_BYTES;
        if (kinds[i] == QCOW_SECTOR_BELOW && comparison->backing_fd >= 0)
            TRY(read_raw(comparison->backing_fd, at, SECTOR_BYTES, sector));
        if (kinds[i] == QCOW_SECTOR_BROKEN)
            return err_new(ERR_INVALID, "sector %" PRIu64 " is broken", at / SECTOR_BYTES);
        if (memcmp(sector, expected + i * SECTOR_BYTES, SECTOR_BYTES) == 0)
            continue;
        if (memcmp(sector, zero, SECTOR_BYTES) != 0)
            return err_new(ERR_INVALID, "sector %" PRIu64 " is wrong, 0x%" PRIx64,
                           at / SECTOR_BYTES, stamp_of(sector));
        if (++comparison->zeroes > ZEROES_TOLD_MAX)
            return err_new(ERR_INVALID, "too many sectors are zeros, such as %" PRIu64,
                           at / SECTOR_BYTES);
        (void)printf("zero %" PRIu64 "\n", at / SECTOR_BYTES);
    }
    return NULL;
}

static struct err *do_view(const struct words *words)
{
    uint64_t offset = number(words, 5), end = offset + number(words, 6);
    struct comparison comparison = {.backing_fd = -1};
    CLEANUP(cleanup_free) void *image = NULL;
    CLEANUP(cleanup_fd) int raw_fd = -1, backing_fd = -1;
    size_t len = 0;

    TRY(file_read_all(text(words, 1), IMAGE_BYTES_MAX, &image, &len));
    bool is_snapshot = strcmp(text(words, 2), "-") != 0;
    if (is_snapshot
            ? !qcow_checker_snapshot_view(image, len, (uint32_t)number(words, 2), &comparison.view)
            : !qcow_checker_view(image, len, &comparison.view))
        return err_new(ERR_INVALID, "the checker refuses the image");
    if (strcmp(text(words, 3), "-") != 0)
        TRY(open_raw(text(words, 3), &backing_fd));
    TRY(open_raw(text(words, 4), &raw_fd));
    comparison.backing_fd = backing_fd;
    comparison.raw_fd = raw_fd;
    for (size_t part; offset < end; offset += part) {
        part = (size_t)MIN(CHUNK_BYTES, end - offset);
        TRY(compare_sectors(&comparison, offset, part));
    }
    return NULL;
}

static struct err *do_request(const struct words *words)
{
    const char *name = text(words, 0);
    uint64_t offset = number(words, 1), len = number(words, 2);

    if (disk == NULL)
        return err_new(ERR_STATE, "no disk is open");
    if (strcmp(name, "compare") == 0)
        return do_compare(words);
    if (strcmp(name, "dump") == 0)
        return do_dump(text(words, 1));
    if (strcmp(name, "switch") == 0)
        return do_switch(text(words, 1), text(words, 2));
    if (strcmp(name, "merge") == 0)
        return do_merge(text(words, 1), (unsigned)len);
    if (len > REQUEST_MAX)
        return err_new(ERR_INVALID, "a request of %" PRIu64 " bytes is too long", len);
    if (strcmp(name, "write") == 0)
        return do_write(offset, len, number(words, 3));
    if (strcmp(name, "zero") == 0)
        return block_write_zeroes(disk, offset, len, false);
    if (strcmp(name, "unmap") == 0)
        return block_write_zeroes(disk, offset, len, true);
    if (strcmp(name, "discard") == 0)
        return block_discard(disk, offset, len);
    if (strcmp(name, "flush") == 0)
        return block_flush(disk);
    return err_new(ERR_INVALID, "command '%s' is unknown", name);
}

/* *out_answered: the answer was more than `ok`. */
static struct err *do_command(const struct words *words, bool *out_answered)
{
    const char *name = text(words, 0);

    *out_answered = false;
    if (strcmp(name, "create") == 0)
        return do_create(words);
    if (strcmp(name, "open") == 0)
        return do_open(words);
    if (strcmp(name, "close") == 0)
        return do_close();
    if (strcmp(name, "view") == 0)
        return do_view(words);
    if (strcmp(name, "snapshot") == 0)
        return do_snapshot(words);
    *out_answered = strcmp(name, "check") == 0;
    return *out_answered ? do_check(words) : do_request(words);
}

int main(void)
{
    static char line[LINE_BYTES_MAX];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct words words = {.count = 0};
        char *rest = line;
        bool is_answered;
        for (char *word = strtok_r(rest, " \n", &rest); word != NULL && words.count < WORDS_MAX;
             word = strtok_r(NULL, " \n", &rest))
            words.at[words.count++] = word;

        struct err *err = do_command(&words, &is_answered);
        if (err != NULL)
            (void)printf("error %s\n", err_message(err));
        else if (!is_answered)
            (void)printf("ok\n");
        err_free(err);
        (void)fflush(stdout);
    }
    return disk == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
}
