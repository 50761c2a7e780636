/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_terminal.h - gives the guest the whole keyboard while its console is our terminal.
 * Thread: loop only.
 */
#ifndef TOOLS_VM_RUN_RUN_TERMINAL_H
#define TOOLS_VM_RUN_RUN_TERMINAL_H

/* No-op when stdin is not a terminal. Ctrl-] then is the way out. Restored at exit. */
void run_terminal_make_raw(void);

#endif
