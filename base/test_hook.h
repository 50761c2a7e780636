/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hook.h - lets a test stop a process at a named step, to kill it just there.
 *
 * With FERRY_TEST_STOP_AT=NAME in the environment, the process stops itself (SIGSTOP) when it
 * reaches test_hook("NAME"); SIGCONT makes it go on. Without the variable nothing happens. Names
 * are those of the phase tables. Thread: any, but not on a page's or a request's path.
 */
#ifndef BASE_TEST_HOOK_H
#define BASE_TEST_HOOK_H

void test_hook(const char *name);

#endif
