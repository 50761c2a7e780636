/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve_command.c - see serve_command.h. Tested by: tests/disk
 *
 * The server is nbdkit with a plugin of ours (nbd_plugin.c), which this process becomes.
 */
#include "tools/vm-disk/serve_command.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/checked_math.h"
#include "base/cleanup.h"
#include "tools/program.h"
#include "tools/vm-disk/disk_source.h"

#define PLUGIN    "lib/ferry/nbdkit-ferry-plugin.so"
#define WORDS_MAX (OPTION_LIST_MAX + 24)

static struct {
    struct disk_source source;
    const char *socket;
    uint64_t port;
    const char *pid_file;
    bool is_writable;
} settings;

#define SETTINGS __typeof__(settings)

static const struct option_row rows[] = {
    DISK_SOURCE_ROWS(SETTINGS, source),
    OPTION_TEXT("socket", 's', SETTINGS, socket, "PATH", NULL, "serve on this Unix socket"),
    OPTION_NUMBER("port", 'p', SETTINGS, port, "PORT", 0, 65535, 0,
                  "serve on this TCP port, to this host only, since nothing is encrypted; 0: no"),
    OPTION_TEXT("pid-file", 0, SETTINGS, pid_file, "FILE", NULL,
                "made when clients can connect; holds the process number"),
    OPTION_FLAG("writable", 'w', SETTINGS, is_writable, "clients may write"),
};

static const struct option_table table = {
    .program = "vm-disk serve",
    .arguments = "IMAGE",
    .summary = "Lets any NBD client read an image, or write it, until Ctrl-C.",
    .rows = rows,
    .row_count = ARRAY_COUNT(rows),
    .operands_min = 1,
    .operands_max = 1,
};

/* Of the process to be. */
struct words {
    char *list[WORDS_MAX + 1]; /* owned; the last is NULL */
    size_t count;
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *fmt, ...)
{
    va_list args;

    ASSERT(words->count < WORDS_MAX);
    va_start(args, fmt);
    if (vasprintf(&words->list[words->count], fmt, args) < 0)
        words->list[words->count] = NULL;
    va_end(args);
    words->count++;
}

/* Beside the program: bin/vm-disk, lib/ferry/nbdkit-ferry-plugin.so. */
static struct err *find_plugin(char **out_path)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);

    if (len < 0)
        return err_errno(errno, "find the plugin of nbdkit");
    path[len] = '\0';
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(path, '/');
        if (slash != NULL)
            *slash = '\0';
    }
    CLEANUP(cleanup_free) char *plugin = NULL;
    if (asprintf(&plugin, "%s/" PLUGIN, path) < 0)
        return err_new(ERR_NO_MEMORY, "find the plugin of nbdkit");
    if (access(plugin, R_OK) != 0)
        return err_new(ERR_INCOMPATIBLE,
                       "there is no '%s': this vm-disk was built without nbdkit's headers (Debian: "
                       "nbdkit-plugin-dev)",
                       plugin);
    *out_path = TAKE_PTR(plugin);
    return NULL;
}

static struct err *look_who_listens(const struct sockaddr_un *address, bool *out_is_alive)
{
    CLEANUP(cleanup_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_errno(errno, "create a socket");
    *out_is_alive = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;
    if (*out_is_alive || errno == ECONNREFUSED)
        return NULL;
    return err_errno(errno, "look at '%s'", address->sun_path);
}

/* nbdkit leaves its socket behind, and would not serve there again. */
static struct err *remove_old_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    bool is_alive = false;

    if (strlen(path) >= sizeof(address.sun_path))
        return err_new(ERR_INVALID, "the path of a socket has at most %zu bytes",
                       sizeof(address.sun_path) - 1);
    if (lstat(path, &status) != 0)
        return NULL;
    if (!S_ISSOCK(status.st_mode))
        return err_new(ERR_STATE, "'%s' is there and is no socket; take another name", path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    TRY(look_who_listens(&address, &is_alive));
    if (is_alive)
        return err_new(ERR_STATE, "somebody serves on '%s' already; take another name", path);
    return unlink(path) == 0 ? NULL : err_errno(errno, "remove the old socket '%s'", path);
}

static void add_place(struct words *words)
{
    if (settings.socket != NULL) {
        add(words, "--unix=%s", settings.socket);
    } else {
        add(words, "--ipaddr=127.0.0.1");
        add(words, "--port=%llu", (unsigned long long)settings.port);
    }
    if (settings.pid_file != NULL)
        add(words, "--pidfile=%s", settings.pid_file);
}

static void compose(struct words *words, const char *plugin, const char *image)
{
    add(words, "nbdkit");
    add(words, "--foreground");
    add_place(words);
    if (!settings.is_writable)
        add(words, "--readonly");
    add(words, "%s", plugin);
    add(words, "file=%s", image);
    add(words, "format=%s", settings.source.format);
    for (size_t i = 0; i < settings.source.folders.count; i++)
        add(words, "image-folder=%s", settings.source.folders.values[i]);
    add(words, "writable=%s", settings.is_writable ? "true" : "false");
    if (settings.source.snapshot != NULL)
        add(words, "snapshot=%s", settings.source.snapshot);
    add(words, "share=%s", settings.source.is_shared ? "true" : "false");
}

/* Returns only when it could not become nbdkit. */
static struct err *become_nbdkit(struct words *words)
{
    for (size_t i = 0; i < words->count; i++)
        if (words->list[i] == NULL)
            return err_new(ERR_NO_MEMORY, "start nbdkit");
    (void)execvp("nbdkit", words->list);
    if (errno == ENOENT)
        return err_new(ERR_INCOMPATIBLE,
                       "nbdkit, which serves the image, is not installed (Debian: nbdkit)");
    return err_errno(errno, "start nbdkit");
}

/* Says what is wrong before nbdkit does. */
static struct err *try_to_open(const char *image)
{
    CLEANUP(disk_chain_close) struct image_chain chain = {.stack = NULL};

    return disk_source_open(&settings.source, image,
                            settings.is_writable ? DISK_IMAGE_WRITABLE : DISK_IMAGE_READ_ONLY,
                            &chain);
}

static struct err *run(const struct option_result *operands)
{
    CLEANUP(cleanup_free) char *plugin = NULL;
    struct words words = {.count = 0};

    if ((settings.socket == NULL) == (settings.port == 0))
        program_check_usage(err_new(ERR_INVALID, "say where to serve: either --socket or --port"));
    TRY(try_to_open(operands->operands[0]));
    TRY(find_plugin(&plugin));
    if (settings.socket != NULL)
        TRY(remove_old_socket(settings.socket));
    compose(&words, plugin, operands->operands[0]);
    struct err *err = become_nbdkit(&words);
    for (size_t i = 0; i < words.count; i++)
        free(words.list[i]);
    return err;
}

const struct program_verb serve_command = {"serve", &table, &settings, run};
