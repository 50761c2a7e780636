/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write_list.c - see qcow_write_list.h.
 * Tested by: qcow_flush_test.c and qcow_power_cut_test.c
 */
#include "storage/qcow/qcow_write_list.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "storage/host_file.h"

struct qcow_pending_write {
    struct qcow_pending_write *next; /* owned */
    uint64_t offset;
    size_t len;
    uint8_t data[];
};

uint8_t *qcow_write_list_add(struct qcow_write_list *list, uint64_t offset, size_t len)
{
    struct qcow_pending_write *write = malloc(sizeof(*write) + len);
    if (write == NULL)
        return NULL;

    write->next = list->first;
    write->offset = offset;
    write->len = len;
    list->first = write;
    return write->data;
}

struct err *qcow_write_list_submit(const struct qcow_write_list *list, struct host_file *file)
{
    for (const struct qcow_pending_write *write = list->first; write != NULL; write = write->next)
        TRY(host_file_write_bytes(file, write->data, write->len, write->offset));
    return NULL;
}

void qcow_write_list_finish(struct qcow_write_list *list)
{
    while (list->first != NULL) {
        struct qcow_pending_write *write = list->first;
        list->first = write->next;
        free(write);
    }
}
