/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover_record.c - see handover_record.h. Tested by: move_test.c.
 */
#include "migration/handover_record.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file_io.h"
#include "control/runtime_folder.h"

static struct err *record_path(const char *machine_name, char **out_path)
{
    CLEANUP(cleanup_free) char *folder = NULL;

    TRY(state_folder("handover", &folder));
    if (asprintf(out_path, "%s/%s", folder, machine_name) < 0)
        return err_new(ERR_NO_MEMORY, "hand-over record");
    return NULL;
}

struct err *handover_record_write(const char *machine_name, const char *target,
                                  const struct session_id *session)
{
    CLEANUP(cleanup_free) char *path = NULL;
    CLEANUP(cleanup_free) char *text = NULL;
    char session_text[SESSION_ID_TEXT];

    TRY(record_path(machine_name, &path));
    session_id_text(session, session_text);
    int len = asprintf(&text, "session %s\ntarget %s\n", session_text, target);
    if (len < 0) {
        text = NULL;
        return err_new(ERR_NO_MEMORY, "hand-over record");
    }
    return file_replace(path, text, (size_t)len, 0600);
}

struct err *handover_record_remove(const char *machine_name)
{
    CLEANUP(cleanup_free) char *path = NULL;

    TRY(record_path(machine_name, &path));
    if (unlink(path) != 0 && errno != ENOENT)
        return err_errno(errno, "remove hand-over record '%s'", path);
    return NULL;
}
