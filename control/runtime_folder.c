/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runtime_folder.c - see runtime_folder.h.
 */
#include "control/runtime_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"

#define SOCKET_SUFFIX ".sock"

/* Where a kind of folder is: the first of these that applies. */
struct folder_rule {
    const char *own_variable;  /* names the folder itself */
    const char *root_path;     /* of root */
    const char *xdg_variable;  /* names the folder that ours is in */
    const char *home_relative; /* of others; NULL: /tmp/ferry-UID */
    bool xdg_before_root;
};

static const struct folder_rule runtime_rule = {
    .own_variable = "FERRY_RUNTIME_DIR",
    .root_path = "/run/ferry",
    .xdg_variable = "XDG_RUNTIME_DIR",
    .xdg_before_root = true,
};
static const struct folder_rule state_rule = {
    .own_variable = "FERRY_STATE_DIR",
    .root_path = "/var/lib/ferry",
    .xdg_variable = "XDG_STATE_HOME",
    .home_relative = ".local/state/ferry",
};
static const struct folder_rule config_rule = {
    .own_variable = "FERRY_CONFIG_DIR",
    .root_path = "/etc/ferry",
    .xdg_variable = "XDG_CONFIG_HOME",
    .home_relative = ".config/ferry",
};

__attribute__((format(printf, 1, 2))) static char *format_path(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    char *path;
    int len = vasprintf(&path, fmt, args);
    va_end(args);
    return len < 0 ? NULL : path;
}

/* An empty variable counts as unset. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static char *folder_path(const struct folder_rule *rule)
{
    const char *own = variable(rule->own_variable);
    const char *xdg = variable(rule->xdg_variable);
    const char *home = variable("HOME");
    bool is_root = geteuid() == 0;

    if (own != NULL)
        return format_path("%s", own);
    if (xdg != NULL && (rule->xdg_before_root || !is_root))
        return format_path("%s/ferry", xdg);
    if (is_root)
        return format_path("%s", rule->root_path);
    if (rule->home_relative != NULL && home != NULL)
        return format_path("%s/%s", home, rule->home_relative);
    return format_path("/tmp/ferry-%u", (unsigned)geteuid());
}

/* A folder that somebody else made, in /tmp for one, must not be trusted. */
static struct err *check_owner(const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0)
        return err_errno(errno, "look at folder '%s'", path);
    if (!S_ISDIR(status.st_mode) || (status.st_uid != geteuid() && status.st_uid != 0))
        return err_new(ERR_DENIED, "folder '%s' belongs to somebody else; remove it", path);
    return NULL;
}

static struct err *folder_find(const struct folder_rule *rule, unsigned mode, char **out_path)
{
    CLEANUP(cleanup_free) char *path = folder_path(rule);
    if (path == NULL)
        return err_new(ERR_NO_MEMORY, "path of a folder");
    TRY(folder_create(path, mode));
    *out_path = TAKE_PTR(path);
    return NULL;
}

struct err *runtime_folder(char **out_path)
{
    CLEANUP(cleanup_free) char *path = NULL;
    TRY(folder_find(&runtime_rule, 0700, &path));
    if (variable(runtime_rule.own_variable) == NULL)
        TRY(check_owner(path));
    *out_path = TAKE_PTR(path);
    return NULL;
}

struct err *state_folder(const char *below, char **out_path)
{
    CLEANUP(cleanup_free) char *path = NULL;
    TRY(folder_find(&state_rule, 0700, &path));
    if (below == NULL) {
        *out_path = TAKE_PTR(path);
        return NULL;
    }

    CLEANUP(cleanup_free) char *inner = format_path("%s/%s", path, below);
    if (inner == NULL)
        return err_new(ERR_NO_MEMORY, "path of a folder");
    TRY(folder_create(inner, 0700));
    *out_path = TAKE_PTR(inner);
    return NULL;
}

struct err *config_folder(char **out_path)
{
    return folder_find(&config_rule, 0755, out_path);
}

struct err *machine_name_check(const char *name)
{
    size_t len = strnlen(name, MACHINE_NAME_MAX + 1);
    if (len == 0 || len > MACHINE_NAME_MAX || name[0] == '.' || name[0] == '-' ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != len)
        return err_new(ERR_INVALID,
                       "a machine's name is 1..%u of [A-Za-z0-9._-] and starts with a letter, "
                       "digit or '_'",
                       MACHINE_NAME_MAX);
    return NULL;
}

struct err *machine_socket_path(const char *name, char **out_path)
{
    TRY(machine_name_check(name));
    CLEANUP(cleanup_free) char *folder = NULL;
    TRY(runtime_folder(&folder));
    char *path = format_path("%s/%s" SOCKET_SUFFIX, folder, name);
    if (path == NULL)
        return err_new(ERR_NO_MEMORY, "path of a control socket");
    *out_path = path;
    return NULL;
}

static int is_socket_name(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);
    size_t suffix_len = strlen(SOCKET_SUFFIX);
    return entry->d_name[0] != '.' && len > suffix_len && len - suffix_len <= MACHINE_NAME_MAX &&
           strcmp(entry->d_name + len - suffix_len, SOCKET_SUFFIX) == 0;
}

struct err *machine_names(char ***out_names, size_t *out_count)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    TRY(runtime_folder(&folder));
    struct dirent **entries;
    int found = scandir(folder, &entries, is_socket_name, alphasort);
    if (found < 0)
        return err_errno(errno, "list folder '%s'", folder);

    size_t count = 0;
    char **names = calloc((size_t)found + 1, sizeof(*names));
    for (size_t i = 0; i < (size_t)found; i++) {
        size_t len = strlen(entries[i]->d_name) - strlen(SOCKET_SUFFIX);
        char *name = names == NULL ? NULL : strndup(entries[i]->d_name, len);
        if (name != NULL)
            names[count++] = name;
        free(entries[i]);
    }
    free(entries);
    if (names == NULL)
        return err_new(ERR_NO_MEMORY, "list of machines");
    *out_names = names;
    *out_count = count;
    return NULL;
}
