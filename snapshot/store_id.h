/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_id.h - tells a store from another one at the same path: the file .store-id in it.
 *
 * A path alone does not: a file system may not be mounted, and an empty folder be in the store's
 * place. Thread: any.
 */
#ifndef SNAPSHOT_STORE_ID_H
#define SNAPSHOT_STORE_ID_H

#include <stdbool.h>

#include "base/err.h"

#define STORE_ID_LEN 32u

struct store_id {
    char text[STORE_ID_LEN + 1]; /* hexadecimal; empty: it has none */
};

bool store_id_is_valid(const char *text);

/* Of the store in this folder. ERR_NOT_FOUND: there is no such folder. */
ERR_RESULT store_id_read(const char *path, struct store_id *out_id);
/* The same; a store that has none gets one, durably, and so does a folder that does not exist. */
ERR_RESULT store_id_make(const char *path, struct store_id *out_id);

#endif
