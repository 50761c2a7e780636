/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resume_record.c - see resume_record.h. Tested by: migration/move_test.c.
 */
#include "control/resume_record.h"

#include "base/file_io.h"

#define RECORD_BYTES_MAX 512u /* within one sector */

struct err *resume_record_write(const Ferry__ControlResume *resume, const int *fds, size_t fd_count)
{
    if (resume->record.len == 0)
        return NULL;
    if (fd_count != 1 || resume->record.len > RECORD_BYTES_MAX)
        return err_new(ERR_INVALID, "resume: a record of %zu bytes with %zu files",
                       resume->record.len, fd_count);
    TRY(file_write_at(fds[0], "resume record", resume->record.data, resume->record.len, 0));
    return file_sync(fds[0], "resume record");
}
