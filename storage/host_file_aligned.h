/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_file_aligned.h - a host file for any bytes over one that takes whole blocks only.
 */
#ifndef STORAGE_HOST_FILE_ALIGNED_H
#define STORAGE_HOST_FILE_ALIGNED_H

#include "storage/host_file.h"

/* Takes the file, also on failure. */
ERR_RESULT host_file_aligned_create(struct host_file *next, struct host_file_alignment alignment,
                                    struct host_file **out_file);

#endif
