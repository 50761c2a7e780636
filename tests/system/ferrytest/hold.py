# SPDX-License-Identifier: Apache-2.0
"""Holds a thread of a program at a named step while its other threads run."""

import contextlib
import os
import socket

from ferrytest.trouble import Failure


class Hold:
    """Programs that are started with `env` are held at the step, each time that they get there."""

    def __init__(self, folder, step):
        self.path = os.path.join(folder, "hold")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.env = {"FERRY_TEST_HOLD_AT": step, "FERRY_TEST_HOLD_SOCKET": self.path}

    @contextlib.contextmanager
    def held(self, seconds=60):
        """Waits until a thread is there; it goes on at the end of the block."""
        self.listener.settimeout(seconds)
        try:
            connection, _ = self.listener.accept()
        except TimeoutError:
            raise Failure(f"no thread gets to '{self.env['FERRY_TEST_HOLD_AT']}'") from None
        with connection:
            yield

    def close(self):
        """Nobody is held from here on."""
        self.listener.close()
        os.unlink(self.path)
