/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_record.c - see layer_record.h.
 *
 * Two bytes of the lock file are locked, as open file description locks: one by who needs layers
 * or removes them, the other for the moment in which the record is replaced.
 */
#include "snapshot/layer_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/file_io.h"
#include "base/limits.h"
#include "snapshot/layer_record_list.h"
#include "storage/overlay_file.h"

#define FILE_SUFFIX "stores"
#define LOCK_SUFFIX "stores.lock"
#define FILE_MODE   0644

enum { LOCK_AT_NEED = 0, LOCK_AT_CHANGE = 1 };

/* Root may save the machines of others, who must be able to go on afterwards. */
static struct err *give_to_owner(int fd, const char *path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    struct stat own, status;

    TRY(folder_of(path, &folder));
    if (fstat(fd, &own) != 0 || stat(folder, &status) != 0)
        return err_errno(errno, "look at '%s'", path);
    if (own.st_uid != status.st_uid && fchown(fd, status.st_uid, status.st_gid) != 0 &&
        errno != EPERM)
        return err_errno(errno, "give '%s' to its folder's owner", path);
    return NULL;
}

static struct err *lock_byte(int fd, const char *path, int at, int type, bool is_waiting)
{
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    int failed;

    do
        failed = fcntl(fd, is_waiting ? F_OFD_SETLKW : F_OFD_SETLK, &lock);
    while (failed != 0 && errno == EINTR);
    if (failed == 0)
        return NULL;
    if (errno == EAGAIN || errno == EACCES)
        return err_new(ERR_DENIED, "'%s' is locked: a save or a restore is at work", path);
    return err_errno(errno, "lock '%s'", path);
}

struct err *layer_lock_take(const char *image, enum layer_lock how, int *out_fd)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(overlay_file_sibling(image, LOCK_SUFFIX, &path));
    CLEANUP(cleanup_fd) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    if (fd < 0)
        return err_errno(errno, "open '%s'", path);
    TRY(give_to_owner(fd, path));
    TRY(lock_byte(fd, path, LOCK_AT_NEED, how == LAYER_LOCK_NEED ? F_RDLCK : F_WRLCK,
                  how != LAYER_LOCK_TRY_REMOVE));
    *out_fd = TAKE_FD(fd);
    return NULL;
}

static struct err *unpack(const void *data, size_t len, Ferry__LayerRecord **out_record)
{
    if (len > LAYER_RECORD_BYTES_MAX)
        return err_new(ERR_INVALID, "%zu bytes; the most is %u", len,
                       (unsigned)LAYER_RECORD_BYTES_MAX);

    Ferry__LayerRecordFile *file = ferry__layer_record_file__unpack(NULL, len, data);
    Ferry__LayerRecord *record = NULL;
    if (file != NULL && XXH3_64bits(file->record.data, file->record.len) == file->checksum)
        record = ferry__layer_record__unpack(NULL, file->record.len, file->record.data);
    if (file != NULL)
        ferry__layer_record_file__free_unpacked(file, NULL);
    if (record == NULL)
        return err_new(ERR_INVALID, "it is damaged");
    *out_record = record;
    return NULL;
}

struct err *layer_record_parse(const char *name, const void *data, size_t len,
                               Ferry__LayerRecord **out_record)
{
    CLEANUP(cleanup_layer_record) Ferry__LayerRecord *record = NULL;
    struct err *err = unpack(data, len, &record);

    if (err == NULL && record->format != LAYER_RECORD_FORMAT)
        err = err_new(ERR_INCOMPATIBLE,
                      "written in format %u; this version knows format %u: use the version that "
                      "wrote it",
                      record->format, LAYER_RECORD_FORMAT);
    if (err == NULL)
        err = layer_record_check(record);
    if (err != NULL)
        return err_wrap(err, "read '%s', which says who needs the layers of a disk", name);
    *out_record = TAKE_PTR(record);
    return NULL;
}

struct err *layer_record_read(const char *image, Ferry__LayerRecord **out_record)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;

    TRY(overlay_file_sibling(image, FILE_SUFFIX, &path));
    *out_record = NULL;
    if (access(path, F_OK) != 0)
        return errno == ENOENT ? NULL : err_errno(errno, "look for '%s'", path);
    TRY(file_read_all(path, LAYER_RECORD_BYTES_MAX, &data, &len));
    return layer_record_parse(path, data, len, out_record);
}

void layer_record_free(Ferry__LayerRecord *record)
{
    if (record != NULL)
        ferry__layer_record__free_unpacked(record, NULL);
}

static struct err *write_record(const char *image, const Ferry__LayerRecord *record)
{
    CLEANUP(cleanup_free) char *path = NULL;
    Ferry__LayerRecordFile file = FERRY__LAYER_RECORD_FILE__INIT;

    TRY(overlay_file_sibling(image, FILE_SUFFIX, &path));
    TRY(err_wrap(layer_record_check(record), "write '%s'", path));
    size_t inner_len = ferry__layer_record__get_packed_size(record);
    CLEANUP(cleanup_free) uint8_t *inner = malloc(inner_len + 1);
    if (inner == NULL)
        return err_new(ERR_NO_MEMORY, "write '%s'", path);
    (void)ferry__layer_record__pack(record, inner);
    file.checksum = XXH3_64bits(inner, inner_len);
    file.record.data = inner;
    file.record.len = inner_len;
    size_t len = ferry__layer_record_file__get_packed_size(&file);
    if (len > LAYER_RECORD_BYTES_MAX)
        return err_new(ERR_INVALID, "write '%s': %zu bytes; the most is %u", path, len,
                       (unsigned)LAYER_RECORD_BYTES_MAX);
    CLEANUP(cleanup_free) uint8_t *data = malloc(len);
    if (data == NULL)
        return err_new(ERR_NO_MEMORY, "write '%s'", path);
    (void)ferry__layer_record_file__pack(&file, data);
    return file_replace(path, data, len, FILE_MODE);
}

static struct err *read_or_begin(const char *image, Ferry__LayerRecord **out_record)
{
    struct err *err = layer_record_read(image, out_record);

    if (err != NULL && err_kind(err) != ERR_INVALID)
        return err;
    if (err == NULL && *out_record != NULL)
        return NULL;
    err_free(err);
    Ferry__LayerRecord *record = malloc(sizeof(*record));
    if (record == NULL)
        return err_new(ERR_NO_MEMORY, "write down who needs layers");
    ferry__layer_record__init(record);
    record->format = LAYER_RECORD_FORMAT;
    *out_record = record;
    return NULL;
}

static struct err *real_folder(const char *image, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(folder_of(image, &folder));
    *out_path = realpath(folder, NULL);
    return *out_path == NULL ? err_errno(errno, "folder '%s'", folder) : NULL;
}

static struct err *apply(const char *image, Ferry__LayerRecord *record,
                         const struct layer_need *need, bool *out_is_changed)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    *out_is_changed = false;
    TRY(real_folder(image, &folder));
    TRY(layer_record_add_folder(record, folder, out_is_changed));
    if (need->store_path != NULL)
        TRY(layer_record_add_store(record, need->store_path, need->store_id.text, need->machine,
                                   out_is_changed));
    if (need->image_folder != NULL)
        TRY(layer_record_add_image_folder(record, need->image_folder, out_is_changed));
    if (need->is_sealing)
        TRY(layer_record_add_sealed(record, need->number, out_is_changed));
    return NULL;
}

struct err *layer_record_note(const char *image, int lock_fd, const struct layer_need *need)
{
    CLEANUP(cleanup_layer_record) Ferry__LayerRecord *record = NULL;
    bool is_changed;

    TRY(lock_byte(lock_fd, image, LOCK_AT_CHANGE, F_WRLCK, true));
    struct err *err = read_or_begin(image, &record);
    if (err == NULL)
        err = apply(image, record, need, &is_changed);
    if (err == NULL && is_changed)
        err = write_record(image, record);
    err_free(lock_byte(lock_fd, image, LOCK_AT_CHANGE, F_UNLCK, true));
    return err_wrap(err, "write down who needs the layers of '%s'", image);
}

struct err *layer_record_forget(const char *image, int lock_fd, const char *path)
{
    CLEANUP(cleanup_layer_record) Ferry__LayerRecord *record = NULL;

    TRY(lock_byte(lock_fd, image, LOCK_AT_CHANGE, F_WRLCK, true));
    struct err *err = layer_record_read(image, &record);
    if (err == NULL && (record == NULL || !layer_record_remove_path(record, path)))
        err = err_new(ERR_NOT_FOUND, "'%s' is not written down for '%s'", path, image);
    if (err == NULL)
        err = write_record(image, record);
    err_free(lock_byte(lock_fd, image, LOCK_AT_CHANGE, F_UNLCK, true));
    return err;
}

bool layer_record_knows(const Ferry__LayerRecord *record, unsigned number)
{
    for (size_t i = 0; i < record->n_sealed; i++)
        if (number >= record->sealed[i]->first && number <= record->sealed[i]->last)
            return true;
    return false;
}
