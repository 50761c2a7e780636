#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a program as on a host that forbids io_uring: no_io_uring.py PROGRAM ARGUMENT..."""

import ctypes
import os
import struct
import sys

SYS_IO_URING_SETUP = 425
EPERM = 1
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
REFUSE, ALLOW = 0x00050000, 0x7fff0000

# Of the instructions for seccomp: code, where to go on when it is equal and when not, operand. The
# number of the system call is the first word of what they look at.
FILTER = ((LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, SYS_IO_URING_SETUP),
          (RETURN, 0, 0, REFUSE | EPERM), (RETURN, 0, 0, ALLOW))


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def main():
    """The filter stays in place across the exec."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in FILTER)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Program(len(FILTER), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or
            libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0):
        sys.exit(f"no filter of system calls: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
