/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow_write_list.c - see qcow_write_list.h.
 * Tested by: qcow_flush_test.c and qcow_power_cut_test.c
 */
#include "storage/qcow/qcow_write_list.h"

#include <stdlib.h>

#include "base/checked_math.h"
#include "base/cleanup.h"
#include "storage/host_file.h"

/* Buffers that go past the page cache as they are. */
#define BUFFER_ALIGNMENT 4096u

struct qcow_pending_write {
    struct qcow_pending_write *next; /* owned */
    uint64_t offset;
    size_t len;
    uint8_t *data; /* owned */
};

uint8_t *qcow_write_list_add(struct qcow_write_list *list, uint64_t offset, size_t len)
{
    CLEANUP(cleanup_free) struct qcow_pending_write *write = malloc(sizeof(*write));
    uint8_t *data = aligned_alloc(BUFFER_ALIGNMENT, align_up(len, BUFFER_ALIGNMENT));
    if (write == NULL || data == NULL) {
        free(data);
        return NULL;
    }

    *write = (struct qcow_pending_write){
        .next = list->first, .offset = offset, .len = len, .data = data};
    list->first = TAKE_PTR(write);
    list->count++;
    return data;
}

static int compare_writes(const void *a, const void *b)
{
    const struct qcow_pending_write *const *left = a, *const *right = b;

    return (*left)->offset<(*right)->offset ? -1 : (*left)->offset>(*right)->offset;
}

/* Writes the first of the sorted writes and what follows it without a gap as one; gives how many.
 */
static struct err *submit_run(struct host_file *file, struct qcow_pending_write **writes,
                              size_t count, size_t *out_done)
{
    struct io_vector vector = {.count = 0};
    uint64_t start = writes[0]->offset, end = start;
    size_t done = 0;

    for (; done < count && writes[done]->offset == end && vector.count < (int)IO_VECTOR_MAX;
         done++) {
        io_vector_append(&vector, writes[done]->data, writes[done]->len);
        end += writes[done]->len;
    }
    *out_done = done;
    return host_file_write(file, &vector, start);
}

struct err *qcow_write_list_submit(const struct qcow_write_list *list, struct host_file *file)
{
    CLEANUP(cleanup_free)
    struct qcow_pending_write **sorted = malloc((list->count + 1) * sizeof(*sorted));
    if (sorted == NULL)
        return err_new(ERR_NO_MEMORY, "flush '%s'", file->path);

    size_t count = 0;
    for (struct qcow_pending_write *write = list->first; write != NULL; write = write->next)
        sorted[count++] = write;
    qsort(sorted, count, sizeof(*sorted), compare_writes);
    for (size_t at = 0, done; at < count; at += done)
        TRY(submit_run(file, sorted + at, count - at, &done));
    return NULL;
}

bool qcow_write_list_is_guarded(const struct qcow_write_list *list, const struct qcow_guard *guard,
                                enum qcow_table_kind kind)
{
    for (const struct qcow_pending_write *write = list->first; write != NULL; write = write->next)
        if (!qcow_guard_covers(guard, kind, write->offset, write->len))
            return false;
    return true;
}

void qcow_write_list_finish(struct qcow_write_list *list)
{
    while (list->first != NULL) {
        struct qcow_pending_write *write = list->first;
        list->first = write->next;
        free(write->data);
        free(write);
    }
}
