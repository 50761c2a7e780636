/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_record.c - see session_record.h.
 *
 * The outcome is overwritten in place: 16 bytes at the start of the file lie in one sector, and
 * fdatasync has no metadata to write, which keeps a commit short.
 */
#include "migration/session_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "base/limits.h"
#include "control/runtime_folder.h"

#define RECORD_BYTES_MAX 4096u
#define STAT_BYTES_MAX   1024u
#define STAT_START_FIELD 22u /* proc(5): starttime */

struct session_record {
    int fd;     /* owned; holds the lock */
    char *path; /* owned */
};

DEFINE_CLEANUP(record, struct session_record, session_record_close)

/* Padded to SESSION_RECORD_OUTCOME_BYTES, by MigrationOutcome. */
static const char *const outcome_texts[] = {
    [FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED] = "prepared       \n",
    [FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING] = "running        \n",
    [FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED] = "aborted        \n",
};

static struct err *record_path(const struct session_id *session, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;
    char text[SESSION_ID_TEXT];

    TRY(state_folder("arrivals", &folder));
    session_id_text(session, text);
    if (asprintf(out_path, "%s/%s", folder, text) < 0)
        return err_new(ERR_NO_MEMORY, "session record");
    return NULL;
}

/* When a process started, in the kernel's ticks: with its number that names it for ever. 0: it does
 * not exist, or has ended and only waits to be reaped. */
static uint64_t process_start_ticks(pid_t pid)
{
    char path[64];
    char stat[STAT_BYTES_MAX + 1];

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    CLEANUP(cleanup_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, stat, STAT_BYTES_MAX);
    if (len <= 0)
        return 0;
    stat[len] = '\0';
    /* The name in parentheses may hold anything; field 3, the state, follows the last one. */
    const char *at = strrchr(stat, ')');
    if (at == NULL || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X')
        return 0;
    for (unsigned field = 2; field < STAT_START_FIELD && at != NULL; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static void fingerprint_text(const uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES],
                             char out[2 * CHANNEL_FINGERPRINT_BYTES + 1])
{
    for (size_t i = 0; i < CHANNEL_FINGERPRINT_BYTES; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", fingerprint[i]);
}

static struct err *record_open(const char *path, int flags, struct session_record **out_record)
{
    struct session_record *record = calloc(1, sizeof(*record));

    if (record == NULL)
        return err_new(ERR_NO_MEMORY, "session record");
    record->fd = open(path, flags | O_CLOEXEC, 0600);
    record->path = strdup(path);
    if (record->fd < 0 || record->path == NULL) {
        int errnum = errno;
        session_record_close(record);
        return err_errno(errnum, "session record '%s'", path);
    }
    *out_record = record;
    return NULL;
}

struct err *session_record_create(const struct session_id *session, const char *machine_name,
                                  const uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES],
                                  pid_t machine_pid, struct session_record **out_record)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) char *folder = NULL;
    CLEANUP(cleanup_record) struct session_record *record = NULL;
    char peer[2 * CHANNEL_FINGERPRINT_BYTES + 1];
    char text[RECORD_BYTES_MAX];

    TRY(record_path(session, &path));
    if (access(path, F_OK) == 0)
        return err_new(ERR_STATE, "a session of this id has been here before");
    TRY(record_open(path, O_RDWR | O_CREAT | O_EXCL, &record));
    if (flock(record->fd, LOCK_EX | LOCK_NB) != 0)
        return err_errno(errno, "lock session record '%s'", path);

    fingerprint_text(fingerprint, peer);
    int len = snprintf(text, sizeof(text), "%speer %s\nprocess %d %ju\nmachine %s\n",
                       outcome_texts[FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED], peer,
                       (int)machine_pid, (uintmax_t)process_start_ticks(machine_pid), machine_name);
    TRY(file_write_at(record->fd, path, text, (size_t)len, 0));
    TRY(file_sync(record->fd, path));
    TRY(folder_of(path, &folder));
    TRY(folder_sync(folder));
    *out_record = TAKE_PTR(record);
    return NULL;
}

void session_record_close(struct session_record *record)
{
    if (record == NULL)
        return;
    if (record->fd >= 0)
        close(record->fd);
    free(record->path);
    free(record);
}

static struct err *read_outcome(const struct session_record *record,
                                Ferry__MigrationOutcome *out_outcome)
{
    char text[SESSION_RECORD_OUTCOME_BYTES];

    TRY(file_read_at(record->fd, record->path, text, sizeof(text), 0));
    for (int outcome = FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED;
         outcome <= FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED; outcome++) {
        if (memcmp(text, outcome_texts[outcome], sizeof(text)) == 0) {
            *out_outcome = (Ferry__MigrationOutcome)outcome;
            return NULL;
        }
    }
    return err_new(ERR_INVALID, "session record '%s' is damaged", record->path);
}

struct err *session_record_set(struct session_record *record, Ferry__MigrationOutcome outcome)
{
    Ferry__MigrationOutcome current;

    TRY(read_outcome(record, &current));
    if (current == outcome)
        return NULL;
    if (current != FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED)
        return err_new(ERR_STATE, "session record '%s' has been decided otherwise", record->path);
    TRY(file_write_at(record->fd, record->path, outcome_texts[outcome],
                      SESSION_RECORD_OUTCOME_BYTES, 0));
    return file_sync(record->fd, record->path);
}

void session_record_forget(struct session_record *record)
{
    (void)unlink(record->path);
}

int session_record_fd(const struct session_record *record)
{
    return record->fd;
}

const char *session_record_running_text(void)
{
    return outcome_texts[FERRY__MIGRATION_OUTCOME__MIGRATION_RUNNING];
}

/* The rest of the line at *at, which begins with `key`; ends it there and moves on. NULL for any
 * other line, and from then on. */
static const char *record_field(char **at, const char *key)
{
    char *line = *at == NULL ? NULL : strsep(at, "\n");

    if (line == NULL || strncmp(line, key, strlen(key)) != 0) {
        *at = NULL;
        return NULL;
    }
    return line + strlen(key);
}

/* Does the process that would run the machine live, and did this certificate open the session? */
static struct err *read_details(const struct session_record *record,
                                const uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES],
                                bool *out_process_lives)
{
    CLEANUP(cleanup_free) void *data = NULL;
    size_t len = 0;
    char asker[2 * CHANNEL_FINGERPRINT_BYTES + 1];

    TRY(file_read_all(record->path, RECORD_BYTES_MAX, &data, &len));
    char *at =
        len < SESSION_RECORD_OUTCOME_BYTES ? NULL : (char *)data + SESSION_RECORD_OUTCOME_BYTES;
    const char *peer = record_field(&at, "peer ");
    const char *process = record_field(&at, "process ");
    if (peer == NULL || process == NULL)
        return err_new(ERR_INVALID, "session record '%s' is damaged", record->path);
    fingerprint_text(fingerprint, asker);
    if (strcmp(peer, asker) != 0)
        return err_new(ERR_DENIED, "this session belongs to another host");
    char *ticks = NULL;
    long pid = strtol(process, &ticks, 10);
    uint64_t start_ticks = strtoull(ticks, NULL, 10);
    *out_process_lives = start_ticks != 0 && process_start_ticks((pid_t)pid) == start_ticks;
    return NULL;
}

struct err *session_record_ask(const struct session_id *session,
                               const uint8_t fingerprint[CHANNEL_FINGERPRINT_BYTES],
                               Ferry__MigrationOutcome *out_outcome)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_record) struct session_record *record = NULL;
    bool process_lives = false;

    TRY(record_path(session, &path));
    if (access(path, F_OK) != 0) {
        *out_outcome = FERRY__MIGRATION_OUTCOME__MIGRATION_UNKNOWN;
        return NULL;
    }
    TRY(record_open(path, O_RDWR, &record));
    TRY(read_details(record, fingerprint, &process_lives));
    /* Locked: the session's process decides. The lock comes first: what is read after it is final.
     */
    bool is_ours = flock(record->fd, LOCK_EX | LOCK_NB) == 0;
    if (is_ours)
        TRY(read_details(record, fingerprint, &process_lives));
    TRY(read_outcome(record, out_outcome));
    if (is_ours && !process_lives &&
        *out_outcome == FERRY__MIGRATION_OUTCOME__MIGRATION_UNDECIDED) {
        TRY(session_record_set(record, FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED));
        *out_outcome = FERRY__MIGRATION_OUTCOME__MIGRATION_ABORTED;
    }
    return NULL;
}
