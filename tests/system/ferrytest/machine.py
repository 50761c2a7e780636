# SPDX-License-Identifier: Apache-2.0
"""A running guest, judged by what it says on its console."""

import os
import pathlib
import subprocess
import tempfile
import threading
import time

from ferrytest.host import BUILD
from ferrytest.trouble import Failure

# Fields that must grow while a job is at work, and those that must stay zero.
PROGRESS = {"pattern": ("pass", "edge"), "fpu": ("rounds",), "timer": ("ticks0",),
            "dirty": ("written",), "disk": ("writes", "reads"),
            "disk1": ("writes", "reads"), "clock": ("samples",)}
ALWAYS_ZERO = ("bad", "failed", "back")
SILENCE_SECONDS_MAX = 30


def parse(line):
    """'job key=1 ...' as (job, {key: 1}); None for other lines."""
    words = line.split()
    if not words or words[0] not in PROGRESS:
        return None
    fields = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    try:
        return words[0], {key: int(value) for key, value in fields.items()}
    except ValueError:
        return None


class Guest:
    """Follows the console of a machine by name on a host, from now on."""

    def __init__(self, host, name, jobs):
        self.host, self.name, self.jobs = host, name, jobs
        self.reports = {job: [] for job in jobs}
        self.lines = []
        self.news = threading.Condition()
        self.process = subprocess.Popen([str(BUILD / "bin" / "vm-ctl"), "console", name],
                                        env=host.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            report = parse(line)
            with self.news:
                self.lines.append(line)
                if report is not None and report[0] in self.reports:
                    self.reports[report[0]].append(report[1])
                self.news.notify_all()

    def _judge(self):
        for line in self.lines:
            if line.startswith("EXCEPTION"):
                raise Failure(f"guest {self.name}: {line}")
        for job, reports in self.reports.items():
            for report in reports:
                wrong = {key: report[key] for key in ALWAYS_ZERO if report.get(key, 0) != 0}
                if wrong:
                    raise Failure(f"guest {self.name}: {job} {report}")

    def autopsy(self):
        """What is known of a machine whose guest says nothing: does it run, does only this console
        not hear it, does it go on after a pause? A snapshot of it stays for who wants to look."""
        said = [self.host.start("vm-ctl", "status", self.name).must_end(), *self._threads()]
        said += [f"this console: vm-ctl {self.process.poll()}, {len(self.lines)} lines"]
        said += [f"another console hears {self._heard()}", *self._threads()]
        kept = tempfile.mkdtemp(prefix="ferry-silent-guest-")
        said += [self.host.start("vm-save", self.name, "--store", kept).must_end()]
        said += [f"after the pause of a save into {kept} one hears {self._heard()}"]
        log = pathlib.Path(self.host.env["FERRY_RUNTIME_DIR"]) / f"{self.name}.log"
        return "\n".join(said + ([log.read_text()[-1000:]] if log.exists() else []))

    def _threads(self):
        """What each thread of the host's machines does, and how much it has done."""
        said = []
        for pid in self.host.machine_processes():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                stat = (task / "stat").read_text().rsplit(")", 1)[1].split()
                said.append(f"{pid} {(task / 'comm').read_text().strip()}: {stat[0]}, "
                            f"{stat[11]}+{stat[12]} ticks, in {(task / 'wchan').read_text()}")
        return said

    def _heard(self, seconds=5):
        """The last lines of a console of its own."""
        other = Guest(self.host, self.name, ())
        with other.news:
            other.news.wait_for(lambda: len(other.lines) > 3, seconds)
        other.close()
        return other.lines[-3:]

    def _stands_still(self, job, index):
        """Whether nothing has happened in a job since this report."""
        first, last = self.reports[job][index], self.reports[job][-1]
        keys = [key for key in PROGRESS[job] if key in first]
        return bool(keys) and all(first[key] == last[key] for key in keys)

    def _missing(self, counts, reports):
        """Jobs that have not reported `reports` times since then, or have not got on meanwhile; a
        busy host's disk may take longer for a request than from one report to the next."""
        return [job for job, count in counts.items() if len(self.reports[job]) < count + reports or
                reports > 1 and self._stands_still(job, count)]

    def check(self, reports=2, seconds=SILENCE_SECONDS_MAX):
        """Waits until each job has reported `reports` times more and has got on from the first of
        these to the last, and judges all reports."""
        deadline = time.monotonic() + seconds
        with self.news:
            counts = {job: len(self.reports[job]) for job in self.jobs}
            while missing := self._missing(counts, reports):
                if not self.news.wait(max(0, deadline - time.monotonic())):
                    self._judge()
                    said = {job: (len(self.reports[job]), self.reports[job][-1:])
                            for job in self.jobs}
                    raise Failure(f"guest {self.name}: {missing} silent or standing still for "
                                  f"{seconds} s: {said}, last lines {self.lines[-5:]}\n"
                                  f"{self.autopsy()}")
            self._judge()

    def last(self, job):
        """The latest report of a job."""
        with self.news:
            return dict(self.reports[job][-1])

    def close(self):
        """Stops following."""
        self.process.kill()
        self.process.wait()
        self.reader.join(5)
        self.process.stdout.close()


def boot(host, name, **settings):
    """Starts a machine that works at jobs: the payload guest, or the pretended one."""
    if os.path.basename(host.env["FERRY_VM_RUN"]) == "fake-vm-run":
        return boot_fake(host, name, **settings)
    return boot_payload(host, name, **settings)


def boot_fake(host, name, memory=64, rate=2000, disk=None, **_):
    """The pretended machine, whose only job is its memory."""
    words = ["--name", name, "--memory", memory, "--filled", memory // 4, "--ws", 4,
             "--rate", rate]
    if disk is not None:
        words += ["--disk", disk]
    host.start(host.env["FERRY_VM_RUN"], *words)
    host.wait_for_state(name, "running")
    return Guest(host, name, ("pattern",))


def boot_payload(host, name, memory=64, rate=2000, disk=None, jobs=("pattern", "fpu", "timer"),
                 second_jobs=(), options="", arguments=(), program=("vm-run",), disk_options=""):
    """The payload guest; second_jobs run on a second vCPU, program is what starts vm-run."""
    words = [options, f"cpu0={','.join(jobs)}", f"mb={memory // 4}", f"rate={rate}", # first wins
             "report_ms=200", "sleep=1"]
    if second_jobs:
        words += [f"cpu1={','.join(second_jobs)}", "cpus=2"]
    arguments = ["--name", name, "--memory", memory, "--cpus", 2 if second_jobs else 1,
                 "--kernel", BUILD / "guests" / "payload.elf", "--append", " ".join(words),
                 "--console", "none", *arguments]
    if disk is not None:
        arguments += ["--disk", f"id=vda,path={disk},format={disk.suffix[1:]}{disk_options}"]
    host.start(*program, *arguments)
    host.wait_for_state(name, "running")
    return Guest(host, name, (*jobs, *second_jobs))
