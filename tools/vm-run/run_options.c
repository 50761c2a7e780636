/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_options.c - see run_options.h.
 */
#include "tools/vm-run/run_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "base/file_io.h"

#define UUID_BYTES       16u
#define UUID_TEXT_BYTES  36u
#define MAC_BYTES        6u
#define MAC_TEXT_BYTES   17u
#define BELOW_4G_MIB_MAX 3072u
#define FD_MAX           1048576u

static const struct option_row rows[] = {
    OPTION_TEXT("name", 'n', struct run_options, name, "NAME", "vm", "name of the machine"),
    OPTION_TEXT("uuid", 0, struct run_options, uuid, "UUID", NULL, "its UUID; random without it"),
    OPTION_NUMBER("memory", 'm', struct run_options, memory_mib, "MIB", 2, MACHINE_MEMORY_MIB_MAX,
                  512, "guest memory"),
    OPTION_NUMBER("memory-below-4g", 0, struct run_options, memory_below_4g_mib, "MIB", 0,
                  BELOW_4G_MIB_MAX, 0, "of it below the PCI hole; 0: as much as fits"),
    OPTION_NUMBER("cpus", 'c', struct run_options, vcpus, "N", 1, MACHINE_VCPUS_MAX, 1,
                  "number of vCPUs"),
    OPTION_TEXT("cpu", 0, struct run_options, cpu_model, "MODEL", "host",
                "host, x86-64-v2, x86-64-v3 or file=PATH: the oldest host that it may move to "
                "decides"),
    OPTION_TEXT("kernel", 'k', struct run_options, kernel, "FILE", NULL,
                "bzImage, or ELF file with a PVH entry"),
    OPTION_TEXT("initrd", 'i', struct run_options, initrd, "FILE", NULL, "initial ramdisk"),
    OPTION_TEXT("append", 'a', struct run_options, append, "TEXT", "", "kernel command line"),
    OPTION_LIST("disk", 'd', struct run_options, disks, "SPEC",
                "a disk: id=ID,path=FILE,format=raw|qcow2[,readonly=1][,cache=none][,queues=N]"
                "[,track=NAME]...; may be repeated"),
    OPTION_LIST("image-folder", 0, struct run_options, image_folders, "FOLDER",
                "backing files of disks may lie here, too; may be repeated"),
    OPTION_LIST("net", 0, struct run_options, nets, "SPEC",
                "a network: id=ID,tap=NAME|fd=N[,mac=AA:BB:CC:DD:EE:FF]; may be repeated"),
    OPTION_FLAG("no-rng", 0, struct run_options, no_rng, "no virtio random number device"),
    OPTION_TEXT("console", 0, struct run_options, console, "WHERE", "stdio",
                "serial console: stdio, pty, none, file=PATH or socket=PATH"),
    OPTION_FLAG("incoming", 0, struct run_options, is_incoming,
                "start empty: a restore or a move fills the machine"),
    OPTION_NUMBER("control-fd", 0, struct run_options, control_fd, "N", 0, FD_MAX, 0,
                  "a connected control socket to serve; 0: none"),
    OPTION_FLAG("daemonize", 0, struct run_options, daemonize,
                "go to the background once the machine runs"),
};

const struct option_table run_option_table = {
    .program = "vm-run",
    .arguments = "",
    .summary = "Runs one virtual machine.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
};

struct disk_spec {
    const char *id;
    const char *path;
    const char *format;
    uint64_t is_read_only;
    const char *cache;
    const char *on_error;
    const char *detect_zeroes;
    const char *engine;
    uint64_t requests_per_second;
    uint64_t bytes_per_second;
    uint64_t queues; /* 0: as many as vCPUs, if that is possible */
    const char *track;
};

static const struct option_row disk_rows[] = {
    OPTION_TEXT("id", 0, struct disk_spec, id, "ID", NULL, "unique name"),
    OPTION_TEXT("path", 0, struct disk_spec, path, "FILE", NULL, "image"),
    OPTION_TEXT("format", 0, struct disk_spec, format, "FORMAT", NULL, "raw or qcow2"),
    OPTION_NUMBER("readonly", 0, struct disk_spec, is_read_only, "0|1", 0, 1, 0, "read only"),
    OPTION_TEXT("cache", 0, struct disk_spec, cache, "none|writeback", "writeback",
                "past the host's page cache, or through it"),
    OPTION_TEXT("on-error", 0, struct disk_spec, on_error, "enospc|stop|report", "enospc",
                "the guest waits: while there is no room, on any error, never"),
    OPTION_TEXT("detect-zeroes", 0, struct disk_spec, detect_zeroes, "off|on|unmap", "off",
                "writes of zeros alone are zeroing, which may free space"),
    OPTION_TEXT("engine", 0, struct disk_spec, engine, "any|io_uring|threads", "any",
                "what executes requests: io_uring where the host lets us, or threads"),
    OPTION_NUMBER("iops", 0, struct disk_spec, requests_per_second, "COUNT", 0, DISK_RATE_MAX, 0,
                  "requests a second, at most"),
    OPTION_NUMBER("bps", 0, struct disk_spec, bytes_per_second, "BYTES", 0, DISK_RATE_MAX, 0,
                  "bytes a second, at most"),
    OPTION_NUMBER("queues", 0, struct disk_spec, queues, "N", 1, MACHINE_QUEUES_MAX, 0,
                  "queues of requests, so that vCPUs do not wait for each other"),
    OPTION_TEXT("track", 0, struct disk_spec, track, "NAME[+NAME...]", NULL,
                "note what changes, in files beside the image"),
};

struct net_spec {
    const char *id;
    const char *tap;
    uint64_t fd; /* 0: none */
    const char *mac;
};

static const struct option_row net_rows[] = {
    OPTION_TEXT("id", 0, struct net_spec, id, "ID", NULL, "unique name"),
    OPTION_TEXT("tap", 0, struct net_spec, tap, "NAME", NULL, "tap interface"),
    OPTION_NUMBER("fd", 0, struct net_spec, fd, "N", 0, FD_MAX, 0, "descriptor of a tap"),
    OPTION_TEXT("mac", 0, struct net_spec, mac, "MAC", NULL, "address; random without it"),
};

static struct err *set_text(char **field, const char *text)
{
    *field = strdup(text == NULL ? "" : text);
    return *field == NULL ? err_new(ERR_NO_MEMORY, "machine") : NULL;
}

/* Snapshots and other hosts name files by what is said here, and have other working directories. An
 * empty name is none. */
static struct err *set_path(char **field, const char *path)
{
    return path == NULL || path[0] == '\0' ? set_text(field, path) : path_absolute(path, field);
}

/* An image that a link leads to goes by its own name, wherever the link leads to later: what is
 * sealed stands on it. Links to devices are what devices are known by. The folder keeps the name
 * that its users have for it, if that is absolute. */
static struct err *set_image_path(char **field, const char *path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_free) char *real_folder = NULL;
    struct stat link, file;

    if (lstat(path, &link) == 0 && S_ISLNK(link.st_mode) && stat(path, &file) == 0 &&
        S_ISREG(file.st_mode)) {
        *field = realpath(path, NULL);
        return *field == NULL ? err_errno(errno, "follow the link '%s'", path) : NULL;
    }
    TRY(folder_of(path, &folder));
    if (path[0] != '/')
        real_folder = realpath(folder, NULL);
    if (real_folder == NULL) /* opening it says what is wrong with it */
        return set_path(field, path);
    if (asprintf(field, "%s/%s", real_folder, name_in_folder(path)) < 0) {
        *field = NULL;
        return err_new(ERR_NO_MEMORY, "machine");
    }
    return NULL;
}

/* Hexadecimal digits with separators between some; exactly `count` bytes. */
static bool parse_hex(const char *text, char separator, uint8_t *out_bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        while (*text == separator && i > 0)
            text++;
        if (strspn(text, "0123456789abcdefABCDEF") < 2)
            return false;
        out_bytes[i] = (uint8_t)strtoul((const char[]){text[0], text[1], '\0'}, NULL, 16);
        text += 2;
    }
    return *text == '\0';
}

static struct err *random_bytes(uint8_t *out_bytes, size_t count)
{
    if (getrandom(out_bytes, count, 0) != (ssize_t)count)
        return err_errno(errno, "get random bytes");
    return NULL;
}

static struct err *set_uuid(const char *text, ProtobufCBinaryData *field)
{
    field->data = malloc(UUID_BYTES);
    if (field->data == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    field->len = UUID_BYTES;
    if (text != NULL) {
        if (strlen(text) != UUID_TEXT_BYTES || !parse_hex(text, '-', field->data, UUID_BYTES))
            return err_new(ERR_INVALID, "--uuid '%s' is not a UUID", text);
        return NULL;
    }
    TRY(random_bytes(field->data, UUID_BYTES));
    field->data[6] = (field->data[6] & 0x0f) | 0x40; /* RFC 9562: version 4 */
    field->data[8] = (field->data[8] & 0x3f) | 0x80;
    return NULL;
}

static struct err *set_mac(const char *text, ProtobufCBinaryData *field)
{
    field->data = malloc(MAC_BYTES);
    if (field->data == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    field->len = MAC_BYTES;
    if (text != NULL) {
        if (strlen(text) != MAC_TEXT_BYTES || !parse_hex(text, ':', field->data, MAC_BYTES))
            return err_new(ERR_INVALID, "--net: '%s' is not a MAC address", text);
        return NULL;
    }
    TRY(random_bytes(field->data, MAC_BYTES));
    field->data[0] = (field->data[0] & 0xfc) | 0x02; /* local, and not a group */
    return NULL;
}

/* "a+b": the files a.changes and b.changes. */
static struct err *fill_trackers(const char *text, Ferry__DiskConfig *disk)
{
    if (text == NULL)
        return NULL;
    disk->trackers = calloc(strlen(text) + 1, sizeof(char *));
    if (disk->trackers == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    for (;;) {
        size_t len = strcspn(text, "+");
        char *name = strndup(text, len);
        if (name == NULL)
            return err_new(ERR_NO_MEMORY, "machine");
        disk->trackers[disk->n_trackers++] = name;
        if (text[len] == '\0')
            return NULL;
        text += len + 1;
    }
}

static struct err *fill_disk(const char *text, uint64_t vcpus, Ferry__DiskConfig *disk)
{
    CLEANUP(cleanup_free) char *copy = strdup(text);
    struct disk_spec spec;

    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    TRY(option_spec_parse("--disk", disk_rows, ARRAY_COUNT(disk_rows), copy, &spec));
    if (spec.id == NULL || spec.path == NULL || spec.format == NULL)
        return err_new(ERR_INVALID, "--disk %s: say id=, path= and format=", text);
    disk->read_only = spec.is_read_only != 0;
    TRY(set_text(&disk->id, spec.id));
    TRY(set_image_path(&disk->path, spec.path));
    TRY(set_text(&disk->cache, spec.cache));
    TRY(set_text(&disk->on_error, spec.on_error));
    TRY(set_text(&disk->detect_zeroes, spec.detect_zeroes));
    TRY(set_text(&disk->engine, spec.engine));
    disk->requests_per_second = spec.requests_per_second;
    disk->bytes_per_second = spec.bytes_per_second;
    disk->queues = (uint32_t)(spec.queues != 0 ? spec.queues : MIN(vcpus, MACHINE_QUEUES_MAX));
    TRY(fill_trackers(spec.track, disk));
    return set_text(&disk->format, spec.format);
}

static struct err *fill_net(const char *text, Ferry__NetConfig *net,
                            struct run_description *machine)
{
    CLEANUP(cleanup_free) char *copy = strdup(text);
    struct net_spec spec;

    if (copy == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    TRY(option_spec_parse("--net", net_rows, ARRAY_COUNT(net_rows), copy, &spec));
    if (spec.id == NULL || (spec.tap == NULL) == (spec.fd == 0))
        return err_new(ERR_INVALID, "--net %s: say id=, and either tap= or fd=", text);
    if (spec.fd != 0) {
        net->tap_by_fd = true;
        machine->tap_fds[machine->tap_fd_count++] = (int)spec.fd;
    }
    TRY(set_text(&net->id, spec.id));
    TRY(set_text(&net->tap, spec.tap));
    return set_mac(spec.mac, &net->mac);
}

/* By the names that were given, which images may use; their real names are found from these. */
static struct err *fill_image_folders(const struct run_options *options,
                                      Ferry__MachineConfig *config)
{
    if (options->image_folders.count > IMAGE_FOLDERS_MAX)
        return err_new(ERR_INVALID, "at most %u folders of images", IMAGE_FOLDERS_MAX);
    config->image_folders = calloc(options->image_folders.count + 1, sizeof(char *));
    if (config->image_folders == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    for (size_t i = 0; i < options->image_folders.count; i++) {
        const char *path = options->image_folders.values[i];
        if (access(path, F_OK) != 0)
            return err_errno(errno, "--image-folder '%s'", path);
        TRY(set_path(&config->image_folders[i], path));
        config->n_image_folders++;
    }
    return NULL;
}

static struct err *fill_devices(const struct run_options *options, Ferry__MachineConfig *config,
                                struct run_description *machine)
{
    if (options->disks.count > MACHINE_DISKS_MAX || options->nets.count > MACHINE_NETS_MAX)
        return err_new(ERR_INVALID, "at most %u disks and %u networks", MACHINE_DISKS_MAX,
                       MACHINE_NETS_MAX);
    config->disks = calloc(options->disks.count + 1, sizeof(*config->disks));
    config->nets = calloc(options->nets.count + 1, sizeof(*config->nets));
    if (config->disks == NULL || config->nets == NULL)
        return err_new(ERR_NO_MEMORY, "machine");
    for (size_t i = 0; i < options->disks.count; i++) {
        Ferry__DiskConfig *disk = malloc(sizeof(*disk));
        if (disk == NULL)
            return err_new(ERR_NO_MEMORY, "machine");
        ferry__disk_config__init(disk);
        config->disks[config->n_disks++] = disk;
        TRY(fill_disk(options->disks.values[i], options->vcpus, disk));
    }
    for (size_t i = 0; i < options->nets.count; i++) {
        Ferry__NetConfig *net = malloc(sizeof(*net));
        if (net == NULL)
            return err_new(ERR_NO_MEMORY, "machine");
        ferry__net_config__init(net);
        config->nets[config->n_nets++] = net;
        TRY(fill_net(options->nets.values[i], net, machine));
    }
    return NULL;
}

static struct err *fill_config(const struct run_options *options, Ferry__MachineConfig *config)
{
    config->memory_mib = options->memory_mib;
    config->memory_below_4g_mib = options->memory_below_4g_mib != 0
                                      ? options->memory_below_4g_mib
                                      : MIN(options->memory_mib, (uint64_t)BELOW_4G_MIB_MAX);
    config->vcpus = (uint32_t)options->vcpus;
    config->rng = !options->no_rng;
    TRY(set_text(&config->name, options->name));
    TRY(set_uuid(options->uuid, &config->uuid));
    TRY(set_text(&config->cpu_model, options->cpu_model));
    TRY(set_path(&config->kernel, options->kernel));
    TRY(set_path(&config->initrd, options->initrd));
    TRY(set_text(&config->command_line, options->append));
    return set_text(&config->console, options->console);
}

struct err *run_description_init(const struct run_options *options,
                                 struct run_description *out_machine)
{
    *out_machine = (struct run_description){0};
    Ferry__MachineDescription *description = malloc(sizeof(*description));
    Ferry__MachineConfig *config = malloc(sizeof(*config));
    if (description == NULL || config == NULL) {
        free(description);
        free(config);
        return err_new(ERR_NO_MEMORY, "machine");
    }
    ferry__machine_description__init(description);
    ferry__machine_config__init(config);
    description->config = config;
    out_machine->description = description;

    struct err *err = fill_config(options, config);
    if (err == NULL)
        err = fill_image_folders(options, config);
    if (err == NULL)
        err = fill_devices(options, config, out_machine);
    if (err != NULL)
        run_description_finish(out_machine);
    return err;
}

void run_description_finish(struct run_description *machine)
{
    if (machine->description != NULL)
        ferry__machine_description__free_unpacked(machine->description, NULL);
    machine->description = NULL;
}
