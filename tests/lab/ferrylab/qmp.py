# SPDX-License-Identifier: Apache-2.0
"""QEMU's control socket, held open for the whole run.

A client that connects, asks and half-closes at once is sometimes dropped unanswered by QEMU 7.2.
"""

import json
import socket

from ferrylab.trouble import LabTrouble


class Qmp:
    """One open control connection."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rwb")
        self.stream.readline()
        self.call("qmp_capabilities")

    def call(self, command, **arguments):
        """Runs a command and returns its result; events that come between are dropped."""
        request = {"execute": command, "arguments": arguments}
        self.stream.write(json.dumps(request).encode() + b"\n")
        self.stream.flush()
        while True:
            line = self.stream.readline()
            if not line:
                raise LabTrouble(f"the emulator hung up on '{command}'")
            answer = json.loads(line)
            if "error" in answer:
                raise LabTrouble(f"the emulator refused '{command}': {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
