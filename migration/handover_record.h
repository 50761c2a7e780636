/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handover_record.h - the source's durable note that a machine may be given away.
 *
 * Written before the guest stops, so that it costs no blackout, and removed once it is settled who
 * owns the guest. While it exists, nobody may start the machine here without asking the target.
 * One text file a machine below the state folder's "handover". Thread: any.
 */
#ifndef MIGRATION_HANDOVER_RECORD_H
#define MIGRATION_HANDOVER_RECORD_H

#include "base/err.h"
#include "migration/session_id.h"

ERR_RESULT handover_record_write(const char *machine_name, const char *target,
                                 const struct session_id *session);
ERR_RESULT handover_record_remove(const char *machine_name); /* no error when there is none */

#endif
