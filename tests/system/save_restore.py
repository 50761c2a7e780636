#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Saves, restores and deletes with the real programs, kills them at every phase, fills the disk.

usage: save_restore.py BUILD_FOLDER [--kvm]

Without --kvm the machine is the one that needs no KVM. Exit code 77: skipped, with the reason.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

SAVE_PHASES = ["describe", "lend memory", "prepare disks", "begin", "copy memory", "pause",
               "save state", "copy the rest", "mark the cut", "freeze disks", "resume", "write",
               "publish"]
RESTORE_PHASES = ["read the manifest", "check", "make overlays", "start the machine", "configure",
                  "give the memory", "load the state", "resume"]
SECONDS_MAX = 20


def check(condition, message):
    """A test's assertion, with what it was about."""
    if not condition:
        raise AssertionError(message)


class Bench:
    """A folder with everything of one run, and the programs run in it."""

    def __init__(self, build, has_kvm):
        self.bin = pathlib.Path(build).resolve() / "bin"
        self.tests = self.bin.parent / "tests"
        self.has_kvm = has_kvm
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ferry-system-"))
        self.store = self.folder / "store"
        self.disk = self.folder / "disk.raw"
        self.machines = []
        self.env = dict(os.environ, FERRY_RUNTIME_DIR=str(self.folder / "run"),
                        FERRY_STATE_DIR=str(self.folder / "state"))
        self.env.pop("FERRY_TEST_STOP_AT", None)
        if not has_kvm:
            self.env["FERRY_VM_RUN"] = str(self.tests / "fake-vm-run")

    def machine_words(self):
        """The command line of the machine to save."""
        if not self.has_kvm:
            return [str(self.tests / "fake-vm-run"), "--name", "web", "--memory", "32", "--filled",
                    "16", "--ws", "4", "--rate", "5000", "--disk", str(self.disk)]
        return [str(self.bin / "vm-run"), "--name", "web", "--memory", "64", "--cpus", "2",
                "--kernel", str(self.bin.parent / "guests" / "payload.elf"), "--append",
                "cpus=2 cpu0=pattern,fpu,clock cpu1=disk,dirty mb=16 ws=8 rate=2000 report_ms=200",
                "--disk", f"id=vda,path={self.disk},format=raw",
                "--console", f"file={self.folder / 'web.console'}"]

    def start_machine(self):
        """Starts it and waits until it answers."""
        if not self.disk.exists():
            self.disk.write_bytes(bytes(16 << 20))
        log = open(self.folder / "web.out", "ab")
        process = subprocess.Popen(self.machine_words(), env=self.env, stdout=log, stderr=log)
        self.machines.append(process)
        self.wait("the machine runs", lambda: self.state("web") == "running")
        return process

    def run(self, *words, code=0):
        """Runs one of our programs; returns what it printed."""
        done = subprocess.run([str(self.bin / words[0]), *map(str, words[1:])], env=self.env,
                              capture_output=True, text=True, timeout=60, check=False)
        check(done.returncode == code or (code is None and done.returncode != 0),
              f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}")
        return done.stdout if code == 0 else done.stderr

    def state(self, name):
        """What the machine says it is doing, or 'gone'."""
        done = subprocess.run([str(self.bin / "vm-ctl"), "status", name, "--json"], env=self.env,
                              capture_output=True, text=True, timeout=60, check=False)
        return json.loads(done.stdout)["state"] if done.returncode == 0 else "gone"

    def wait(self, what, condition):
        """Polls until it holds."""
        end = time.monotonic() + SECONDS_MAX
        while not condition():
            check(time.monotonic() < end, f"waited in vain until {what}")
            time.sleep(0.02)

    def save(self, *options, store=None):
        """Saves the machine; returns the report."""
        return json.loads(self.run("vm-save", "web", "--store", store or self.store, "--json",
                                   *options))

    def snapshots(self):
        """What vm-snapshot lists."""
        return json.loads(self.run("vm-snapshot", "list", "--store", self.store, "--json"))

    def run_and_kill(self, phase, *words):
        """Runs a program and kills it when it reaches the phase."""
        process = subprocess.Popen([str(self.bin / words[0]), *map(str, words[1:])],
                                   env=dict(self.env, FERRY_TEST_STOP_AT=phase))
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        check(os.WIFSTOPPED(status), f"{words[0]} did not reach '{phase}'")
        process.send_signal(signal.SIGKILL)
        process.wait()

    def kill_machine(self, name="web"):
        """Ends a machine's process outright."""
        pid = json.loads(self.run("vm-ctl", "status", name, "--json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        for process in self.machines:
            if process.pid == pid:
                process.wait()
        self.wait("the machine is gone", lambda: self.state(name) == "gone")

    def patterns(self):
        """All that guests have reported so far."""
        logs = list(self.folder.glob("*.out")) + list(self.folder.glob("*.console"))
        logs += list((self.folder / "run").glob("*.log"))
        return "\n".join(log.read_text(errors="replace") for log in logs)

    def expect_good_guest(self, name="web"):
        """The guest goes on, and finds nothing wrong."""
        seen = len(re.findall(r"bad=0", self.patterns()))
        self.wait("the guest has checked itself again",
                  lambda: len(re.findall(r"bad=0", self.patterns())) >= seen + 3)
        check(not re.search(r"bad=[1-9]", self.patterns()), "the guest found wrong memory or disk")
        check(self.state(name) == "running", "the machine does not run")

    def close(self):
        """Ends what still runs and removes the folder."""
        for name in ("web", "copy"):
            subprocess.run([str(self.bin / "vm-ctl"), "quit", name], env=self.env, check=False,
                           capture_output=True)
        for process in self.machines:
            process.kill()
            process.wait()
        subprocess.run(["rm", "-rf", str(self.folder)], check=False)


def test_chain_and_restore(bench):
    """Three snapshots in a row; each can be brought back, also under another name."""
    bench.start_machine()
    reports = [bench.save() for _ in range(3)]
    check([r["parent"] for r in reports] == ["", reports[0]["id"], reports[1]["id"]],
          "each snapshot builds on the one before")
    check(reports[2]["bytes"] < reports[0]["bytes"], "an increment is smaller")
    for report in reports:
        bench.run("vm-snapshot", "verify", report["snapshot"], "--store", bench.store)
    check(len(bench.snapshots()) == 3, "three are listed")
    bench.run("vm-snapshot", "tree", "web", "--store", bench.store)
    bench.run("vm-snapshot", "show", "web", "--store", bench.store)
    bench.expect_good_guest()
    bench.kill_machine()
    for report in (reports[2], reports[0]):
        restored = json.loads(bench.run("vm-restore", report["snapshot"], "--store", bench.store,
                                        "--json"))
        check(restored["first_run_us"] > 0, "the first instruction's time is told")
        bench.expect_good_guest()
        bench.kill_machine()
    bench.run("vm-restore", "web", "--store", bench.store, "--name", "copy", "--paused")
    check(bench.state("copy") == "paused", "--paused leaves it paused")
    bench.run("vm-ctl", "resume", "copy")
    bench.expect_good_guest("copy")


def test_restored_machine_is_saved_again(bench):
    """Rounds of save, kill and restore."""
    bench.start_machine()
    for _ in range(5):
        bench.save()
        bench.kill_machine()
        bench.run("vm-restore", "web", "--store", bench.store, "--verify")
        bench.expect_good_guest()


def test_delete(bench):
    """A parent stays while children need it; the disk's images stay in any case."""
    bench.start_machine()
    first, second = bench.save(), bench.save()
    message = bench.run("vm-snapshot", "delete", first["snapshot"], "--store", bench.store,
                        code=None)
    check(second["id"] in message, f"the child is named: {message}")
    bench.run("vm-snapshot", "delete", second["snapshot"], "--store", bench.store)
    bench.run("vm-snapshot", "delete", first["snapshot"], "--store", bench.store)
    check(bench.snapshots() == [], "none is left")
    third = bench.save()
    check(third["parent"] == "", "the next one is full")
    bench.expect_good_guest()


def test_kill_save_at_each_phase(bench):
    """The machine runs on, earlier snapshots stay, and what was left is cleared away."""
    bench.start_machine()
    first = bench.save()
    for phase in SAVE_PHASES:
        bench.run_and_kill(phase, "vm-save", "web", "--store", bench.store)
        bench.wait(f"the machine runs after '{phase}'", lambda: bench.state("web") == "running")
        check(len(bench.snapshots()) == 1, f"one snapshot after '{phase}'")
    second = bench.save()
    check(second["parent"] == first["id"], "still an increment of the first")
    folders = [entry for entry in (bench.store / "web").iterdir() if entry.is_dir()]
    check(len(folders) == 2, "no garbage is left")
    bench.expect_good_guest()
    bench.kill_machine()
    bench.run("vm-restore", "web", "--store", bench.store, "--verify")
    bench.expect_good_guest()


def test_kill_restore_at_each_phase(bench):
    """Nothing keeps running under the name, and the next restore works."""
    bench.start_machine()
    bench.save()
    bench.kill_machine()
    for phase in RESTORE_PHASES:
        bench.run_and_kill(phase, "vm-restore", "web", "--store", bench.store)
        bench.wait(f"nothing runs after '{phase}'", lambda: bench.state("web") == "gone")
    bench.run("vm-restore", "web", "--store", bench.store)
    bench.expect_good_guest()


def test_full_disk(bench):
    """A store without room: a clear error, no garbage, and the machine runs on."""
    small = bench.folder / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)], check=False,
            capture_output=True).returncode != 0:
        print("  skipped: mounting a small file system needs root")
        return
    try:
        bench.start_machine()
        message = bench.run("vm-save", "web", "--store", small, code=1)
        check("No space left on device" in message, f"the cause is told: {message}")
        left = [entry for entry in (small / "web").iterdir() if entry.is_dir()]
        check(left == [], f"nothing is left: {left}")
        bench.expect_good_guest()
        bench.save()
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_refusals(bench):
    """What does not fit is refused with the reason, before anything starts."""
    bench.start_machine()
    report = bench.save()
    check("is running" in bench.run("vm-restore", "web", "--store", bench.store, code=None),
          "a running name is refused")
    bench.kill_machine()
    sealed = pathlib.Path(report["disks"][0]["sealed"])
    status = sealed.stat()
    sealed.chmod(0o600)
    message = bench.run("vm-restore", "web", "--store", bench.store, code=None)
    check("not sealed" in message, f"an unsealed disk is refused: {message}")
    sealed.chmod(0o400)
    os.utime(sealed)
    message = bench.run("vm-restore", "web", "--store", bench.store, code=None)
    check("altered" in message, f"an altered disk is refused: {message}")
    os.utime(sealed, ns=(status.st_atime_ns, status.st_mtime_ns))
    hidden = sealed.rename(sealed.with_suffix(".hidden"))
    message = bench.run("vm-restore", "web", "--store", bench.store, code=None)
    check("missing" in message, f"a missing disk is refused: {message}")
    hidden.rename(sealed)
    state = bench.store / report["snapshot"] / "state"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    message = bench.run("vm-restore", "web", "--store", bench.store, code=None)
    check("damaged" in message, f"a damaged state is refused: {message}")
    bench.run("vm-snapshot", "verify", "web", "--store", bench.store, code=None)
    check(bench.state("web") == "gone", "nothing was started")


def main():
    """Runs the tests, each on a bench of its own."""
    has_kvm = "--kvm" in sys.argv
    if has_kvm and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("skipped: no access to /dev/kvm")
        return 77
    only = [word[2:] for word in sys.argv if word.startswith("t:")]
    tests = [value for name, value in sorted(globals().items()) if name.startswith("test_")
             and (not only or name in only)]
    for test in tests:
        print(f"{test.__name__}: {test.__doc__}", flush=True)
        bench = Bench(sys.argv[1], has_kvm)
        try:
            test(bench)
        except BaseException:
            print(bench.patterns()[-2000:], flush=True)
            raise
        finally:
            bench.close()
    print(f"{len(tests)} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
