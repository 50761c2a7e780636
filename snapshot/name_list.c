/* SPDX-License-Identifier: Apache-2.0 */
/*
 * name_list.c - see name_list.h. Tested by: store_directory_test.c.
 */
#include "snapshot/name_list.h"

#include <stdlib.h>
#include <string.h>

struct err *name_list_add(struct name_list *list, const char *name)
{
    char **names = reallocarray(list->names, list->count + 1, sizeof(*names));
    if (names == NULL)
        return err_new(ERR_NO_MEMORY, "list of names");
    list->names = names;
    names[list->count] = strdup(name);
    if (names[list->count] == NULL)
        return err_new(ERR_NO_MEMORY, "list of names");
    list->count++;
    return NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void name_list_sort(struct name_list *list)
{
    if (list->count != 0)
        qsort(list->names, list->count, sizeof(*list->names), compare_names);
}

void name_list_finish(struct name_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
    *list = (struct name_list){0};
}
