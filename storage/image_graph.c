/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_graph.c - see image_graph.h.
 *
 * Files are the same if device and inode are: names of backing files may lead through links and
 * other folders. A file with several names is several nodes, which are kept together.
 */
#include "storage/image_graph.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"

static struct err *append(struct image_graph *graph, const struct image_node *node)
{
    if (graph->count == graph->capacity) {
        size_t capacity = graph->capacity * 2 + 64;
        struct image_node *nodes = realloc(graph->nodes, capacity * sizeof(*nodes));
        if (nodes == NULL)
            return err_new(ERR_NO_MEMORY, "list images");
        graph->nodes = nodes;
        graph->capacity = capacity;
    }
    graph->nodes[graph->count++] = *node;
    return NULL;
}

static struct err *read_head(struct image_node *node)
{
    struct image_head head;
    CLEANUP(cleanup_fd) int fd = open(node->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_errno(errno,
                         "open '%s', of which it must be known whether it is an image that stands "
                         "on others",
                         node->path);
    TRY(image_head_read(fd, node->path, &head));
    node->kind = head.kind;
    node->is_backing_raw = strcmp(head.backing_format, "raw") == 0;
    if (head.backing_name[0] == '\0')
        return NULL;
    node->backing_name = strdup(head.backing_name);
    return node->backing_name == NULL ? err_new(ERR_NO_MEMORY, "list images") : NULL;
}

static void node_finish(struct image_node *node)
{
    free(node->path);
    free(node->backing_name);
}

/* Takes the path. */
static struct err *add_file(struct image_graph *graph, char *path, const struct stat *status,
                            bool is_link)
{
    struct image_node node = {.path = path,
                              .name = name_in_folder(path),
                              .status = *status,
                              .is_link = is_link,
                              .backing = IMAGE_GRAPH_NONE};
    struct err *err = read_head(&node);

    if (err == NULL)
        err = append(graph, &node);
    if (err != NULL)
        node_finish(&node);
    return err;
}

static struct err *add_entry(struct image_graph *graph, const char *folder, const char *name)
{
    CLEANUP(cleanup_free) char *path = NULL;
    struct stat own, status;

    if (asprintf(&path, "%s/%s", folder, name) < 0) {
        path = NULL;
        return err_new(ERR_NO_MEMORY, "list images");
    }
    if (lstat(path, &own) != 0 || stat(path, &status) != 0)
        return errno == ENOENT || errno == ELOOP /* gone meanwhile, or leads nowhere */
                   ? NULL
                   : err_errno(errno, "look at '%s'", path);
    if (!S_ISREG(status.st_mode))
        return NULL;
    return add_file(graph, TAKE_PTR(path), &status, S_ISLNK(own.st_mode));
}

struct err *image_graph_add_folder(struct image_graph *graph, const char *path)
{
    CLEANUP(cleanup_folder) DIR *folder = opendir(path);

    if (folder == NULL)
        return err_errno(errno, "look for images in '%s'", path);
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL && errno != 0)
            return err_errno(errno, "look for images in '%s'", path);
        if (entry == NULL)
            return NULL;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            TRY(add_entry(graph, path, entry->d_name));
    }
}

static int compare_nodes(const void *a, const void *b)
{
    const struct image_node *one = a, *other = b;
    int order = file_compare(&one->status, &other->status);

    return order != 0 ? order : strcmp(one->path, other->path);
}

/* The first one of several names of a file. */
size_t image_graph_find(const struct image_graph *graph, const struct stat *status)
{
    size_t low = 0, high = graph->sorted;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (file_compare(&graph->nodes[middle].status, status) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < graph->sorted && file_is_same(&graph->nodes[low].status, status))
        return low;
    for (size_t i = graph->sorted; i < graph->count; i++)
        if (file_is_same(&graph->nodes[i].status, status))
            return i;
    return IMAGE_GRAPH_NONE;
}

/* "json:{...}", "nbd://..." and the like reach beyond files. */
static bool is_plain_path(const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');

    return colon == NULL || (slash != NULL && slash < colon);
}

static struct err *backing_path(const struct image_node *node, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    const char *name = node->backing_name;

    if (!is_plain_path(name))
        return err_new(ERR_INCOMPATIBLE,
                       "image '%s' names a backing file that is not a plain path, so nobody can "
                       "tell what it needs; change it with 'qemu-img rebase -u', or keep the image "
                       "in another folder",
                       node->path);
    if (name[0] == '/') {
        *out_path = strdup(name);
        return *out_path == NULL ? err_new(ERR_NO_MEMORY, "list images") : NULL;
    }
    TRY(folder_of(node->path, &folder));
    if (asprintf(out_path, "%s/%s", folder, name) < 0)
        return err_new(ERR_NO_MEMORY, "list images");
    return NULL;
}

/* What the node stands on, which may become a node by that. */
static struct err *find_backing(struct image_graph *graph, size_t index, size_t *out_backing)
{
    CLEANUP(cleanup_free) char *path = NULL;
    struct stat status;

    TRY(backing_path(&graph->nodes[index], &path));
    if (stat(path, &status) != 0)
        return err_errno(errno,
                         "image '%s' stands on '%s', which can not be found; put that back, or "
                         "keep the image in another folder",
                         graph->nodes[index].path, path);
    *out_backing = image_graph_find(graph, &status);
    if (*out_backing != IMAGE_GRAPH_NONE)
        return NULL;
    TRY(add_file(graph, TAKE_PTR(path), &status, false));
    *out_backing = graph->count - 1;
    return NULL;
}

/* All names of a file: in the sorted part they stand side by side, and in the other each is alone.
 */
static size_t names_end(const struct image_graph *graph, size_t first)
{
    size_t end = first + 1;

    while (end < graph->sorted &&
           file_is_same(&graph->nodes[end].status, &graph->nodes[first].status))
        end++;
    return end;
}

static void mark_raw(struct image_graph *graph, size_t first)
{
    size_t end = names_end(graph, first);

    for (size_t i = first; i < end; i++)
        graph->nodes[i].is_raw = true;
}

static struct err *check_sense(const struct image_node *node)
{
    size_t len = strlen(node->name);
    bool is_named_so = len > 6 && strcmp(node->name + len - 6, ".qcow2") == 0;

    if (node->is_raw ||
        (node->kind != IMAGE_HEAD_BROKEN && (node->kind != IMAGE_HEAD_OTHER || !is_named_so)))
        return NULL;
    return err_new(ERR_INVALID,
                   "'%s' is no sound qcow2 image, so nobody can tell what it needs; repair it, or "
                   "keep it in another folder",
                   node->path);
}

static struct err *connect_node(struct image_graph *graph, size_t index)
{
    size_t backing;

    TRY(check_sense(&graph->nodes[index]));
    if (graph->nodes[index].is_raw || graph->nodes[index].backing_name == NULL)
        return NULL;
    TRY(find_backing(graph, index, &backing));
    graph->nodes[index].backing = backing;
    graph->nodes[backing].children++;
    return NULL;
}

/* What the images above it say is raw. Those that can not be found are met again. */
static void find_raw(struct image_graph *graph)
{
    for (size_t i = 0; i < graph->count; i++) {
        size_t backing;
        if (!graph->nodes[i].is_backing_raw || graph->nodes[i].backing_name == NULL)
            continue;
        struct err *err = find_backing(graph, i, &backing);
        if (err == NULL)
            mark_raw(graph, backing);
        err_free(err);
    }
}

struct err *image_graph_connect(struct image_graph *graph, const struct stat *raw, size_t raw_count)
{
    qsort(graph->nodes, graph->count, sizeof(graph->nodes[0]), compare_nodes);
    graph->sorted = graph->count;
    for (size_t i = 0; i < raw_count; i++) {
        size_t node = image_graph_find(graph, &raw[i]);
        if (node != IMAGE_GRAPH_NONE)
            mark_raw(graph, node);
    }
    find_raw(graph);
    for (size_t i = 0; i < graph->count; i++)
        TRY(connect_node(graph, i));
    graph->pending = calloc(graph->count + 1, sizeof(graph->pending[0]));
    return graph->pending == NULL ? err_new(ERR_NO_MEMORY, "list images") : NULL;
}

static size_t push(struct image_graph *graph, size_t node, size_t pending_count)
{
    if (node == IMAGE_GRAPH_NONE || graph->nodes[node].is_kept)
        return pending_count;
    graph->nodes[node].is_kept = true;
    graph->pending[pending_count] = node;
    return pending_count + 1;
}

/* Each node is pending once at most, so circles end. */
void image_graph_keep(struct image_graph *graph, size_t node)
{
    size_t count = push(graph, node, 0);

    while (count > 0) {
        size_t at = graph->pending[--count];
        size_t first = image_graph_find(graph, &graph->nodes[at].status);
        size_t end = names_end(graph, first);
        for (size_t i = first; i < end; i++)
            count = push(graph, i, count);
        count = push(graph, graph->nodes[at].backing, count);
    }
}

void image_graph_finish(struct image_graph *graph)
{
    for (size_t i = 0; i < graph->count; i++)
        node_finish(&graph->nodes[i]);
    free(graph->nodes);
    free(graph->pending);
    *graph = (struct image_graph){0};
}
