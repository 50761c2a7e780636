/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cancel.h - Ctrl-C, SIGTERM and SIGHUP, for a program that puts things away before it ends.
 *
 * A program begins to listen; what takes long asks between its steps and fails when it is to end,
 * so that it is undone as any failure is. A second signal ends the process at once. In a process
 * that does not listen signals do what they always do. Thread: any.
 */
#ifndef BASE_CANCEL_H
#define BASE_CANCEL_H

#include "base/err.h"

void cancel_listen(void);
/* Signals do again what they did before; what has been asked is forgotten. */
void cancel_ignore(void);

/* ERR_CANCELLED once a signal has come. */
ERR_RESULT cancel_check(void);

#endif
