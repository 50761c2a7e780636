/* SPDX-License-Identifier: Apache-2.0 */
/*
 * name_list.h - texts, owned. Thread: one at a time.
 */
#ifndef SNAPSHOT_NAME_LIST_H
#define SNAPSHOT_NAME_LIST_H

#include <stddef.h>

#include "base/err.h"

struct name_list {
    char **names; /* owned, each and the array */
    size_t count;
};

ERR_RESULT name_list_add(struct name_list *list, const char *name);
void name_list_sort(struct name_list *list);
void name_list_finish(struct name_list *list);

static inline void cleanup_name_list(struct name_list *list)
{
    name_list_finish(list);
}

#endif
