/* SPDX-License-Identifier: Apache-2.0 */
/*
 * move_lock.h - one move of a machine at a time, and whom to tell to stop.
 *
 * NAME.move in the runtime folder, locked as long as the process lives: the kernel knows who holds
 * it, so that nobody is signalled by a number that another process has taken over. Thread: any.
 */
#ifndef TOOLS_VM_MIGRATE_MOVE_LOCK_H
#define TOOLS_VM_MIGRATE_MOVE_LOCK_H

#include "base/err.h"

/* ERR_STATE when another process moves or settles this machine. Held until the process ends. */
ERR_RESULT move_lock_take(const char *name);
/* Tells the process that moves the machine to cancel. ERR_NOT_FOUND when there is none. */
ERR_RESULT move_lock_cancel(const char *name);

#endif
