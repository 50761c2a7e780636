# SPDX-License-Identifier: Apache-2.0
"""A program under test: started, stopped at a named step, killed, judged."""

import os
import subprocess
import tempfile
import time

from ferrytest.trouble import Failure


class Program:
    """One process. Its output goes to a file, so that nothing waits for a reader."""

    def __init__(self, words, env):
        self.words = [str(word) for word in words]
        self.output_file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.words, env=env, stdin=subprocess.DEVNULL,
                                        stdout=self.output_file, stderr=subprocess.STDOUT)

    @property
    def pid(self):
        """Its process number."""
        return self.process.pid

    def output(self):
        """All that it has printed, on both streams."""
        size = os.fstat(self.output_file.fileno()).st_size
        return os.pread(self.output_file.fileno(), size, 0).decode(errors="replace")

    def is_running(self):
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, seconds=120):
        """Waits for the end; returns the exit code, negative for a signal."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self} runs for more than {seconds} s:\n{self.output()}") from None

    def must_end(self, seconds=30):
        """Waits for the end, whatever it is; returns the output."""
        self.wait(seconds)
        return self.output()

    def must_succeed(self, seconds=120):
        """Waits for the end, which must be a good one; returns the output."""
        code = self.wait(seconds)
        if code != 0:
            raise Failure(f"{self} exits with {code}:\n{self.output()}")
        return self.output()

    def must_fail(self, *codes, seconds=120):
        """Waits for the end, which must be one of these exit codes (none given: any but 0)."""
        code = self.wait(seconds)
        if code <= 0 or (codes and code not in codes):
            raise Failure(f"{self} exits with {code}, not with {codes or 'an error'}:\n"
                          f"{self.output()}")
        return self.output()

    def wait_until_stopped(self, seconds=60):
        """Waits until the process has stopped itself at its step; False when it ended instead."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = process_state(self.pid)
            if state in ("T", "t"):
                return True
            if state in (None, "Z") or not self.is_running():
                return False
            time.sleep(0.005)
        raise Failure(f"{self} neither stops nor ends:\n{self.output()}")

    def signal(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def kill(self):
        """Ends it as a crash would."""
        if self.is_running():
            self.process.kill()
        self.process.wait(30)

    def close(self):
        """Ends it, if need be, and forgets its output."""
        self.kill()
        self.output_file.close()

    def __str__(self):
        return " ".join([os.path.basename(self.words[0]), *self.words[1:]])


def process_state(pid):
    """The letter of /proc/PID/stat; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_for(what, is_true, seconds=30):
    """Waits until is_true() is; its value is returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = is_true()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(0.01)
