/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_record_list.h - the lists in a record of who needs layers: each has an entry once.
 * `inout_is_changed` becomes true when something was added. Thread: any.
 */
#ifndef SNAPSHOT_LAYER_RECORD_LIST_H
#define SNAPSHOT_LAYER_RECORD_LIST_H

#include <stdbool.h>

#include "base/err.h"
#include "proto/snapshot.pb-c.h"

ERR_RESULT layer_record_add_folder(Ferry__LayerRecord *record, const char *path,
                                   bool *inout_is_changed);
ERR_RESULT layer_record_add_image_folder(Ferry__LayerRecord *record, const char *path,
                                         bool *inout_is_changed);
/* `machine` NULL: none in particular. */
ERR_RESULT layer_record_add_store(Ferry__LayerRecord *record, const char *path, const char *id,
                                  const char *machine, bool *inout_is_changed);
ERR_RESULT layer_record_add_sealed(Ferry__LayerRecord *record, unsigned number,
                                   bool *inout_is_changed);

/* Stores and folders of images. False: there is none at this path. */
bool layer_record_remove_path(Ferry__LayerRecord *record, const char *path);

/* Is all of it as others may rely on? */
ERR_RESULT layer_record_check(const Ferry__LayerRecord *record);

#endif
