/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_hook.h - lets a test stop a process, or hold one of its threads, at a named step.
 *
 * With FERRY_TEST_STOP_AT=NAME in the environment, the process stops itself (SIGSTOP) when it
 * reaches test_hook("NAME"); SIGCONT makes it go on. With FERRY_TEST_HOLD_AT=NAME, the thread that
 * gets there connects to the Unix socket of the test, FERRY_TEST_HOLD_SOCKET, and goes on when that
 * closes the connection; the other threads run. Without the variables nothing happens. Names are
 * those of the phase tables. Thread: any, but not on a page's or a request's path.
 */
#ifndef BASE_TEST_HOOK_H
#define BASE_TEST_HOOK_H

void test_hook(const char *name);

#endif
