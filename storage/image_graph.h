/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_graph.h - the images of some folders and which of them stand on which, so that it is known
 * what nobody needs.
 *
 *     add folders; say what is known to be raw; connect; keep what is needed: the rest is not
 *
 * Only the heads of files are read (image_head.h). A file in doubt is an error, not a guess: of an
 * image that makes no sense nobody knows what it needs. Thread: one at a time.
 */
#ifndef STORAGE_IMAGE_GRAPH_H
#define STORAGE_IMAGE_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"
#include "storage/image_head.h"

#define IMAGE_GRAPH_NONE SIZE_MAX

struct image_node {
    char *path;       /* owned */
    const char *name; /* the end of it */
    struct stat status;
    bool is_link; /* a symbolic one */
    bool is_raw;  /* somebody says so, so what is in it means nothing */
    bool is_kept;
    enum image_head_kind kind;
    char *backing_name; /* owned; NULL: none */
    bool is_backing_raw;
    size_t backing; /* the node that it stands on; IMAGE_GRAPH_NONE: none */
    size_t children;
};

struct image_graph {
    struct image_node *nodes; /* owned */
    size_t count, capacity;
    size_t sorted;   /* so many, of the folders, are in order of device and inode */
    size_t *pending; /* owned */
};

/* All files of the folder but such that are no regular ones, also by a symbolic link. */
ERR_RESULT image_graph_add_folder(struct image_graph *graph, const char *folder);

/* Finds what each image stands on, wherever that is: files outside the folders become nodes, too.
 * Nodes change their places. `raw` are images that are known to be raw: a guest may have written
 * into them what looks like the head of another. */
ERR_RESULT image_graph_connect(struct image_graph *graph, const struct stat *raw, size_t raw_count);

/* The node of a file; IMAGE_GRAPH_NONE: it is not known. After connecting. */
size_t image_graph_find(const struct image_graph *graph, const struct stat *status);

/* Marks a node and all that it stands on. */
void image_graph_keep(struct image_graph *graph, size_t node);

void image_graph_finish(struct image_graph *graph); /* accepts a zeroed one */

#endif
