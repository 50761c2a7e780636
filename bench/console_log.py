# SPDX-License-Identifier: Apache-2.0
"""Reads the payload guest's serial output, a file that grows, as reports of named fields."""
import pathlib
import time


class ConsoleLog:
    def __init__(self, path):
        self.path = pathlib.Path(path)

    def lines(self):
        """The complete lines: the last one may still be being written."""
        try:
            return self.path.read_text(errors="replace").split("\n")[:-1]
        except FileNotFoundError:
            return []

    def reports(self, job):
        """All complete reports of a job, oldest first, as dictionaries of numbers."""
        found = []
        for line in self.lines():
            words = line.split()
            if len(words) < 2 or words[0] != job:
                continue
            try:
                found.append({k: int(v) for k, v in (word.split("=") for word in words[1:])})
            except ValueError:
                continue  # not a report
        return found

    def wait_for(self, condition, what, timeout_s=60):
        """Polls until condition() is true; returns its value."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        tail = "\n".join(self.lines()[-5:])
        raise TimeoutError(f"{self.path}: no {what} in {timeout_s} s; the last lines:\n{tail}")

    def wait_ready(self):
        self.wait_for(lambda: "guest ready" in self.lines(), "'guest ready'")
