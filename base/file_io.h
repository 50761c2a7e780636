/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_io.h - whole reads and writes, and the steps that make files durable.
 *
 * Each call names `path` in its errors; it is not opened again. Thread: any that may block.
 */
#ifndef BASE_FILE_IO_H
#define BASE_FILE_IO_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

/* All of len bytes, through EINTR and short transfers; the end of the file is an error. */
ERR_RESULT file_read_at(int fd, const char *path, void *out_data, size_t len, uint64_t offset);
ERR_RESULT file_write_at(int fd, const char *path, const void *data, size_t len, uint64_t offset);
ERR_RESULT file_size(int fd, const char *path, uint64_t *out_bytes);
ERR_RESULT file_sync(int fd, const char *path); /* fdatasync */

/* The whole of a regular file of at most bytes_max bytes; free() the data. A zero byte follows. */
ERR_RESULT file_read_all(const char *path, size_t bytes_max, void **out_data, size_t *out_len);

/* The order of files by who they are, whatever their names and content: as for qsort, and 0 for two
 * looks at the same file. */
int file_compare(const struct stat *a, const struct stat *b);

static inline bool file_is_same(const struct stat *a, const struct stat *b)
{
    return file_compare(a, b) == 0;
}

/* Writes path so that a crash leaves the old file or the new one: temporary file beside it, fsync,
 * rename, fsync of the folder. One writer a path at a time: the temporary file's name is fixed, so
 * that a crash leaves at most one. */
ERR_RESULT file_replace(const char *path, const void *data, size_t len, unsigned mode);

/* Creates the folder and its missing parents with this mode, durably; it may exist already. */
ERR_RESULT folder_create(const char *path, unsigned mode);
ERR_RESULT folder_sync(const char *path);
/* The folder of a path: "." when it has none. free() the result. */
ERR_RESULT folder_of(const char *path, char **out_folder);
/* `path`, seen from the working directory if it is relative; links in it stay. free() the result.
 */
ERR_RESULT path_absolute(const char *path, char **out_path);
/* The name in that folder; a part of `path`. */
const char *name_in_folder(const char *path);

static inline void cleanup_folder(DIR **folder)
{
    if (*folder != NULL)
        (void)closedir(*folder);
}

#endif
