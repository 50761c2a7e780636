# SPDX-License-Identifier: Apache-2.0
"""Runs shell commands on a lab machine through labd; agent/agent_frame.h describes the frames."""

import dataclasses
import socket
import struct

STDIN, STDOUT, STDERR, EXIT = range(4)
UNREACHABLE = 255


@dataclasses.dataclass
class Output:
    """What a command printed and how it ended."""
    code: int
    out: str
    err: str

    def text(self):
        """Both streams, for messages."""
        return (self.out + self.err).strip()


def read_exact(stream, count):
    """Reads `count` bytes; fewer mean that the agent is gone."""
    data = stream.read(count)
    if len(data) < count:
        raise ConnectionError("the agent hung up")
    return data


def execute(port, command, stdin=b"", timeout=120):
    """Runs one command through the agent that is forwarded to a local port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return converse(connection, command.encode(), stdin)
    except OSError as error:
        return Output(UNREACHABLE, "", f"the lab's agent does not answer: {error}")


def converse(connection, command, stdin):
    """Sends the request, gathers the answer."""
    connection.sendall(struct.pack("<I", len(command)) + command)
    for start in range(0, len(stdin), 1 << 16):
        part = stdin[start:start + (1 << 16)]
        connection.sendall(struct.pack("<BI", STDIN, len(part)) + part)
    connection.sendall(struct.pack("<BI", STDIN, 0))
    streams = {STDOUT: b"", STDERR: b""}
    with connection.makefile("rb") as stream:
        while True:
            kind, length = struct.unpack("<BI", read_exact(stream, 5))
            data = read_exact(stream, length)
            if kind == EXIT:
                code = struct.unpack("<i", data)[0]
                return Output(code, streams[STDOUT].decode(errors="replace"),
                              streams[STDERR].decode(errors="replace"))
            streams[kind] += data
