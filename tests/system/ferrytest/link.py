# SPDX-License-Identifier: Apache-2.0
"""A link between two hosts that can be cut, stalled or corrupted after so many bytes."""

import socket
import threading

CHUNK_BYTES = 65536


class Link:
    """Forwards TCP connections to a port of this machine. Faults concern what the source sends."""

    def __init__(self, port, fault=None, after_bytes=0):
        self.target, self.fault, self.after_bytes = port, fault, after_bytes
        self.sent_bytes = 0
        self.has_struck = threading.Event()
        self.has_ended = threading.Event()
        self.lock = threading.Lock()
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                source, _ = self.listener.accept()
                target = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            with self.lock:
                self.sockets += [source, target]
            for pair in ((source, target, True), (target, source, False)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _strikes(self, data):
        """Whether the fault happens now; each link has one."""
        with self.lock:
            self.sent_bytes += len(data)
            if self.fault is None or self.sent_bytes <= self.after_bytes:
                return False
            first = not self.has_struck.is_set()
            self.has_struck.set()
            return first or self.fault != "corrupt"

    def _forward(self, start, end, is_from_source):
        try:
            while data := start.recv(CHUNK_BYTES):
                if is_from_source and self._strikes(data):
                    if self.fault == "cut":
                        self.cut()
                        return
                    if self.fault == "corrupt":
                        data = data[:-1] + bytes([data[-1] ^ 1])
                if self.fault == "stall" and self.has_struck.is_set():
                    self.has_ended.wait() # neither data nor an end passes
                    return
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self):
        """Ends all connections at once; new ones are refused."""
        self.close()

    def close(self):
        """Ends the link."""
        self.has_ended.set()
        self.listener.close()
        with self.lock:
            for end in self.sockets:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()
            self.sockets.clear()
