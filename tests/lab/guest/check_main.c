/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_main.c - picks the check program by the name that it was called by.
 *
 * One static binary keeps the guest's initramfs, and with it the boot, small.
 *
 * Tested by: the lab scenarios.
 */
#include <libgen.h>
#include <stdio.h>
#include <string.h>

#include "tests/lab/guest/check.h"

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
} checks[] = {
    {"memcheck", memcheck_main}, {"diskcheck", diskcheck_main}, {"clockcheck", clockcheck_main},
    {"tcpserve", tcpserve_main}, {"tcpcount", tcpcount_main},   {"udpecho", udpecho_main},
    {"udpprobe", udpprobe_main},
};

int main(int argc, char **argv)
{
    const char *name = basename(argv[0]);

    for (size_t index = 0; index < sizeof(checks) / sizeof(checks[0]); index++) {
        if (strcmp(name, checks[index].name) == 0)
            return checks[index].main(argc, argv);
    }
    fprintf(stderr, "%s: no such check\n", name);
    return 2;
}
