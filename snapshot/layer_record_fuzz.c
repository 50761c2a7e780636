/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_record_fuzz.c - any bytes as a record of who needs layers: as a whole file, and as content
 * with a right checksum, to which something is then added.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "base/assert.h"
#include "snapshot/layer_record.h"
#include "snapshot/layer_record_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void parse(const void *data, size_t len)
{
    CLEANUP(cleanup_layer_record) Ferry__LayerRecord *record = NULL;
    bool is_changed = false;

    struct err *err = layer_record_parse("fuzz", data, len, &record);
    for (unsigned i = 0; err == NULL && i < 12; i += 5)
        err = layer_record_add_sealed(record, i, &is_changed);
    if (err == NULL) {
        ASSERT(layer_record_knows(record, 10));
        err = layer_record_check(record);
        ASSERT(err == NULL);
    }
    err_free(err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    Ferry__LayerRecordFile file = FERRY__LAYER_RECORD_FILE__INIT;

    parse(data, len);
    file.checksum = XXH3_64bits(data, len);
    file.record.data = (uint8_t *)(uintptr_t)data;
    file.record.len = len;
    uint8_t *packed = malloc(ferry__layer_record_file__get_packed_size(&file) + 1);
    if (packed != NULL)
        parse(packed, ferry__layer_record_file__pack(&file, packed));
    free(packed);
    return 0;
}
