/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_command.c - see bench_command.h. Tested by: tests/disk
 *
 * Options mean what they mean to 'qemu-img bench', so that both can be given the same.
 */
#include "tools/vm-disk/bench_command.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/checked_math.h"
#include "base/clock.h"
#include "base/limits.h"
#include "storage/disk_image.h"
#include "tools/program.h"
#include "tools/program_json.h"
#include "tools/program_size.h"
#include "tools/program_units.h"
#include "tools/vm-disk/bench_load.h"

#define REQUEST_BYTES_MAX (64 * MIB)

static struct {
    const char *format;
    struct option_list folders;
    uint64_t count, warm_up, depth, flush_every, pattern;
    const char *size, *step, *offset;
    const char *cache, *engine, *order;
    bool is_writing, json;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    OPTION_TEXT("format", 'f', SETTINGS, format, "FORMAT", "qcow2", "of the image, qcow2 or raw"),
    OPTION_LIST("image-folder", 0, SETTINGS, folders, "FOLDER",
                "backing images may lie here, too; may be repeated"),
    OPTION_NUMBER("count", 'c', SETTINGS, count, "N", 1, UINT32_MAX, 75000, "requests"),
    OPTION_NUMBER("warm-up", 0, SETTINGS, warm_up, "N", 0, UINT32_MAX, 0,
                  "so many requests more, before the clock starts"),
    OPTION_NUMBER("depth", 'd', SETTINGS, depth, "N", 1, IO_ENGINE_DEPTH_MAX, 64,
                  "requests in flight at once"),
    OPTION_TEXT("size", 's', SETTINGS, size, "SIZE", "4k", "of a request"),
    OPTION_TEXT("step", 'S', SETTINGS, step, "SIZE", NULL,
                "from one request to the next; without it, the size of a request"),
    OPTION_TEXT("offset", 'o', SETTINGS, offset, "SIZE", "0", "of the first request"),
    OPTION_TEXT("order", 0, SETTINGS, order, "ORDER", "step",
                "step, or random: the same random offsets in each run"),
    OPTION_FLAG("write", 'w', SETTINGS, is_writing,
                "write instead of reading: what the image holds is lost"),
    OPTION_NUMBER("pattern", 0, SETTINGS, pattern, "BYTE", 0, 255, 0, "what is written"),
    OPTION_NUMBER("flush-interval", 0, SETTINGS, flush_every, "N", 0, UINT32_MAX, 0,
                  "flush after so many writes; 0: never"),
    OPTION_TEXT("cache", 't', SETTINGS, cache, "MODE", "writeback",
                "writeback, or none: past the host's page cache"),
    OPTION_TEXT("engine", 'i', SETTINGS, engine, "ENGINE", "any",
                "io_uring, threads, or any: the better one that the host has"),
    OPTION_FLAG("json", 0, SETTINGS, json, "print JSON"),
};

static const struct option_table table = {
    .program = "vm-disk bench",
    .arguments = "IMAGE",
    .summary = "Measures how quickly a machine could read or write an image.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

static struct err *choose(const char *what, const char *text, const char *const *names,
                          size_t count, size_t *out_index)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out_index = i;
            return NULL;
        }
    }
    return err_new(ERR_INVALID, "%s '%s' is not known; see vm-disk bench --help", what, text);
}

static struct err *read_settings(struct bench_load *out_load, enum host_file_cache *out_cache)
{
    static const char *const caches[] = {
        [HOST_FILE_CACHE_WRITEBACK] = "writeback", [HOST_FILE_CACHE_NONE] = "none"};
    static const char *const engines[] = {
        [IO_ENGINE_ANY] = "any", [IO_ENGINE_URING] = "io_uring", [IO_ENGINE_THREADS] = "threads"};
    static const char *const orders[] = {"step", "random"};
    struct bench_load load = {
        .is_writing = settings.is_writing,
        .warm_up = settings.warm_up,
        .count = settings.count,
        .depth = (unsigned)settings.depth,
        .flush_every = settings.flush_every,
        .pattern = (uint8_t)settings.pattern,
    };
    size_t cache, engine, order;

    TRY(choose("cache mode", settings.cache, caches, ARRAY_COUNT(caches), &cache));
    TRY(choose("engine", settings.engine, engines, ARRAY_COUNT(engines), &engine));
    TRY(choose("order", settings.order, orders, ARRAY_COUNT(orders), &order));
    TRY(program_size_parse("size", settings.size, &load.bytes));
    TRY(program_size_parse("step", settings.step == NULL ? settings.size : settings.step,
                           &load.step));
    TRY(program_size_parse("offset", settings.offset, &load.first));
    if (load.bytes == 0 || load.bytes > REQUEST_BYTES_MAX)
        return err_new(ERR_INVALID, "requests of %s are not in 1..%" PRIu64 " bytes", settings.size,
                       REQUEST_BYTES_MAX);
    if (load.flush_every != 0 && !load.is_writing)
        return err_new(ERR_INVALID, "--flush-interval needs --write");
    load.is_random = order == 1;
    load.engine = (enum io_engine_kind)engine;
    *out_cache = (enum host_file_cache)cache;
    *out_load = load;
    return NULL;
}

struct figures {
    uint64_t open_us, close_us;
    struct bench_result result;
};

static struct err *measure(const char *path, enum host_file_cache cache,
                           const struct bench_load *load, struct figures *out_figures)
{
    struct disk_image_name name = {
        .path = path,
        .format = settings.format,
        .access = load->is_writing ? DISK_IMAGE_WRITABLE : DISK_IMAGE_READ_ONLY,
        .cache = cache,
        .folders = settings.folders.values,
        .folder_count = settings.folders.count,
    };
    struct block *block = NULL;
    uint64_t started_ns = clock_monotonic_ns();

    TRY(disk_image_open_named(&name, &block));
    out_figures->open_us = (clock_monotonic_ns() - started_ns) / NS_PER_US;
    struct err *err = range_is_within(load->first, load->bytes, block->virtual_bytes)
                          ? bench_load_run(block, load, &out_figures->result)
                          : err_new(ERR_INVALID, "the disk ends before the first request does");
    started_ns = clock_monotonic_ns();
    struct err *close_err = block_close(block);
    out_figures->close_us = (clock_monotonic_ns() - started_ns) / NS_PER_US;
    if (err == NULL)
        return close_err;
    err_free(close_err);
    return err;
}

static uint64_t peak_memory(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * KIB : 0;
}

static void report(const struct bench_load *load, const struct figures *figures)
{
    double seconds = (double)figures->result.ns / (double)NS_PER_S;
    double per_second = (double)load->count / seconds;

    if (settings.json) {
        program_json_print(json_pack(
            "{s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:s, s:I}", "seconds", seconds,
            "requests_per_second", per_second, "requests", (json_int_t)load->count, "flushes",
            (json_int_t)figures->result.flushes, "bytes", (json_int_t)(load->count * load->bytes),
            "open_us", (json_int_t)figures->open_us, "close_us", (json_int_t)figures->close_us,
            "engine", figures->result.engine, "memory_bytes", (json_int_t)peak_memory()));
        return;
    }
    (void)printf("%" PRIu64 " requests of %s in %.3f seconds by %s: %.0f a second, %s/s\n",
                 load->count, readable_bytes(load->bytes).text, seconds, figures->result.engine,
                 per_second, readable_bytes((uint64_t)(per_second * (double)load->bytes)).text);
    (void)printf("opened in %s, closed in %s, %" PRIu64 " flushes\n",
                 readable_us(figures->open_us).text, readable_us(figures->close_us).text,
                 figures->result.flushes);
}

static struct err *run(const struct option_result *operands)
{
    enum host_file_cache cache = HOST_FILE_CACHE_WRITEBACK;
    struct bench_load load = {.count = 0};
    struct figures figures = {.open_us = 0};

    program_check_usage(read_settings(&load, &cache));
    TRY(measure(operands->operands[0], cache, &load, &figures));
    report(&load, &figures);
    return NULL;
}

const struct program_verb bench_command = {"bench", &table, &settings, run};
