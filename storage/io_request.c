/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_request.c - see io_request.h.
 * Tested by: io_engine_test.c
 */
#include "storage/io_request.h"

#include <stddef.h>

#include "base/assert.h"

struct err *io_request_execute(struct io_request *request)
{
    struct block *block = request->block;

    switch (request->operation) {
    case IO_READ: return block_read(block, request->iovs, request->iov_count, request->offset);
    case IO_WRITE: return block_write(block, request->iovs, request->iov_count, request->offset);
    case IO_FLUSH: return block_flush(block);
    case IO_WRITE_ZEROES:
        return block_write_zeroes(block, request->offset, request->len, request->may_unmap);
    case IO_DISCARD: return block_discard(block, request->offset, request->len);
    }
    UNREACHABLE();
}

void io_list_put(struct io_list *list, struct io_request *request)
{
    request->next = NULL;
    if (list->first == NULL)
        list->first = request;
    else
        list->last->next = request;
    list->last = request;
}

struct io_request *io_list_take(struct io_list *list)
{
    struct io_request *request = list->first;

    if (request != NULL)
        list->first = request->next;
    return request;
}

void io_list_append(struct io_list *list, struct io_list *from)
{
    if (from->first == NULL)
        return;
    if (list->first == NULL)
        list->first = from->first;
    else
        list->last->next = from->first;
    list->last = from->last;
    from->first = NULL;
}
