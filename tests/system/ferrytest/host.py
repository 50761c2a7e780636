# SPDX-License-Identifier: Apache-2.0
"""A host of its own as far as Ferry can tell: own runtime, state and configuration folders."""

import fcntl
import json
import os
import pathlib
import signal
import struct

from ferrytest.program import Program, process_state, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[3]
REPORTS = "sanitizer"
BUILD = pathlib.Path(os.environ.get("FERRY_BUILD", ROOT / "build" / "dev"))


F_OFD_GETLK = 36 # not in Python's fcntl
LOCK_BYTES = (100, 104) # the first of those that images are locked by, and how many


def is_locked(path):
    """Whether somebody holds one of an image's byte locks."""
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, *LOCK_BYTES, 0)
    with open(path, "rb") as file:
        held = fcntl.fcntl(file, F_OFD_GETLK, wanted)
    return struct.unpack("hhqqi4x", held)[0] != fcntl.F_UNLCK


class Host:
    """Programs run here see only the machines and snapshots of this host."""

    def __init__(self, folder, machine_program):
        self.folder = pathlib.Path(folder)
        self.programs = []
        self.env = dict(os.environ)
        self.env["FERRY_VM_RUN"] = str(machine_program)
        # What a sanitizer finds in any process, also in one that nobody waits for, is kept.
        for sanitizer in ("ASAN", "UBSAN", "TSAN"):
            options = self.env.get(f"{sanitizer}_OPTIONS", "")
            self.env[f"{sanitizer}_OPTIONS"] = f"{options}:log_path={self.folder}/{REPORTS}"
        for kind in ("RUNTIME", "STATE", "CONFIG"):
            path = self.folder / kind.lower()
            path.mkdir(parents=True)
            self.env[f"FERRY_{kind}_DIR"] = str(path)

    def program_path(self, program):
        """Where one of Ferry's programs is."""
        return BUILD / "bin" / program

    def start(self, program, *words, stop_at=None, env=None):
        """Starts one of Ferry's programs, or any other by path; stop_at: stops at that step."""
        path = self.program_path(program)
        environment = dict(self.env, **(env or {}))
        if stop_at is not None:
            environment["FERRY_TEST_STOP_AT"] = stop_at
        started = Program([path if path.exists() else program, *words], environment)
        self.programs.append(started)
        return started

    def run(self, program, *words, seconds=120):
        """Runs a program that must succeed; returns its output."""
        return self.start(program, *words).must_succeed(seconds)

    def refuse(self, program, *words, seconds=120):
        """Runs a program that must fail; returns what it says."""
        return self.start(program, *words).must_fail(seconds=seconds)

    def json(self, program, *words, seconds=120):
        """Runs a program with --json; returns the document that it prints."""
        return json.loads(self.run(program, *words, "--json", seconds=seconds))

    def save(self, name, *words):
        """Saves a machine; returns the report. Patient, since the host may be a slow build's or a
        busy one: how long the pause is, the benches judge."""
        return self.json("vm-save", name, "--pause-max", "20000", *words)

    def machines(self):
        """What vm-ctl lists, by name."""
        return {machine["name"]: machine for machine in self.json("vm-ctl", "list")["machines"]}

    def state(self, name):
        """What a machine does; "gone" when it is not there."""
        return self.machines().get(name, {}).get("state", "gone")

    def wait_for_state(self, name, *states, seconds=30):
        """Waits until the machine is in one of these states."""
        wait_for(f"machine {name} is {' or '.join(states)}", lambda: self.state(name) in states,
                 seconds)

    def snapshots(self, name):
        """All snapshots of a machine, oldest first."""
        document = self.json("vm-snapshot", "list", name)
        return document["snapshots"] if isinstance(document, dict) else document

    def sanitizer_reports(self):
        """What sanitizers have found, if the programs were built with any."""
        return "\n".join(path.read_text(errors="replace")
                         for path in self.folder.glob(f"{REPORTS}.*"))

    def machine_processes(self):
        """Processes that run machines of this host, told by their environment."""
        mark = f"FERRY_RUNTIME_DIR={self.env['FERRY_RUNTIME_DIR']}".encode()
        name = pathlib.Path(self.env["FERRY_VM_RUN"]).name.encode()[:15]
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or process_state(entry.name) in (None, "Z"):
                continue
            try:
                if ((entry / "comm").read_bytes().strip() in (name, b"vm-run") and
                        mark in (entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except (FileNotFoundError, PermissionError, ProcessLookupError):
                continue
        return found

    def wait_for_processes(self, count, seconds=20):
        """Waits until so many machine processes are left."""
        wait_for(f"{count} machine processes, not {len(self.machine_processes())}",
                 lambda: len(self.machine_processes()) == count, seconds)

    @staticmethod
    def wait_until_unlocked(path, seconds=20):
        """Waits until nobody holds a lock on a file. The kernel closes the files of a process that
        has ended one after the other, and a busy machine takes a while for many of them."""
        wait_for(f"'{path}' is not locked any more", lambda: not is_locked(path), seconds)

    def close(self):
        """Ends all that this host still runs."""
        for program in self.programs:
            program.close()
        for pid in self.machine_processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
