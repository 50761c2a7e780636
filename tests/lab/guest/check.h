/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - the check programs of the lab, one binary that is called by many names.
 *
 * Each program runs until it is killed and keeps one line about itself in /run/checks/NAME:
 * `key=value` pairs, always with `errors=N`. SIGUSR1 makes it forget its largest gap, so that
 * the harness can ask about one stretch of time.
 */
#ifndef TESTS_LAB_GUEST_CHECK_H
#define TESTS_LAB_GUEST_CHECK_H

#include <stdint.h>

int memcheck_main(int argc, char **argv);
int diskcheck_main(int argc, char **argv);
int clockcheck_main(int argc, char **argv);
int tcpserve_main(int argc, char **argv);
int tcpcount_main(int argc, char **argv);
int udpecho_main(int argc, char **argv);
int udpprobe_main(int argc, char **argv);

#endif
