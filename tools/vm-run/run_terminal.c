/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_terminal.c - see run_terminal.h. Tested by: hand, at a terminal.
 */
#include "tools/vm-run/run_terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;

static void restore(void)
{
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void run_terminal_make_raw(void)
{
    if (isatty(STDIN_FILENO) != 1 || tcgetattr(STDIN_FILENO, &before) != 0)
        return;
    (void)fprintf(stderr, "vm-run: this terminal is the guest's console; Ctrl-] presses its power "
                          "button, and twice ends the machine\r\n");
    struct termios raw = before;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* our own messages end in plain newlines */
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0)
        (void)atexit(restore);
}
