# SPDX-License-Identifier: Apache-2.0
"""Runs scenarios one after the other on one site and says what came of each."""

import base64
import importlib
import pathlib
import sys
import time
import traceback

from ferrylab import paths, storage
from ferrylab.ferry import Ferry
from ferrylab.here import HereSite
from ferrylab.qemu import Qemu
from ferrylab.site import Site
from ferrylab.story import Story, print_table
from ferrylab.trial import Trial
from ferrylab.trouble import EmulatorFault, Failure, LabTrouble, LabUnavailable

SITES = {"lab": Site, "here": HereSite}
VMMS = {"ferry": Ferry, "qemu": Qemu}
KEEP_SECONDS_MAX = 180
ATTEMPTS_MAX = 3  # a scenario is tried again only when the lab's emulator is at fault


def all_scenarios():
    """The scenario modules, by name."""
    names = sorted(path.stem for path in (paths.LAB / "scenarios").glob("[a-z]*.py"))
    return {name: importlib.import_module(f"scenarios.{name}") for name in names}


class Runner:
    """Keeps one site alive for all scenarios, and replaces it when its emulator is at fault."""

    def __init__(self, site_name, build_folder, vmm_name, logs_folder):
        self.site_name = site_name
        self.build_folder = build_folder
        self.vmm_name = vmm_name
        self.logs_folder = pathlib.Path(logs_folder)
        self.site = None
        self.vmm = None
        self.results = []  # (name, "passed", "FAILED" or "skipped", seconds, remark)
        self.figures = []  # (name, what, value, unit)

    def run(self, scenarios):
        """Runs them all; returns how many passed, failed and were skipped."""
        try:
            for name, scenario in scenarios.items():
                self.run_one(name, scenario)
        finally:
            self.stop_site()
        verdicts = [result[1] for result in self.results]
        return tuple(verdicts.count(verdict) for verdict in ("passed", "FAILED", "skipped"))

    def run_one(self, name, scenario):
        """Runs one scenario, again if the lab was at fault."""
        started = time.monotonic()
        story = Story()
        for attempt in range(1, ATTEMPTS_MAX + 1):
            story = Story()
            story.say(f"\n=== {scenario.TITLE} ===")
            try:
                self.play(scenario, story)
                verdict, remark = "passed", ""
            except EmulatorFault as fault:
                verdict, remark = "FAILED", str(fault).splitlines()[0]
                story.say(f"{fault}\nThis is not Ferry's failure"
                          f"{'; trying again' if attempt < ATTEMPTS_MAX else ''}.")
                self.stop_site()
                continue
            except LabUnavailable as lack:
                verdict, remark = "skipped", str(lack).splitlines()[0]
                story.say(f"skipped: {lack}")
            except (Failure, LabTrouble) as failure:
                verdict, remark = "FAILED", str(failure).splitlines()[0]
                story.say(f"FAILED: {failure}")
            except Exception:  # a bug of the scenario itself must not hide the others' results
                verdict, remark = "FAILED", "the scenario itself is wrong"
                traceback.print_exc(file=sys.stdout)
            break
        if verdict == "FAILED":
            self.keep_logs(name)
            self.stop_site()
        self.results.append((name, verdict, time.monotonic() - started, remark))
        self.figures += [(name, *figure) for figure in story.figures]

    def play(self, scenario, story):
        """One attempt. What fails on a host that is dead or lost its clock is the emulator's fault,
        whatever it looks like."""
        try:
            self.ensure_site(story)
            trial = Trial(self.site, self.vmm, story, scenario.MACHINE)
            scenario.run(trial)
            trial.finish()
        except Failure:
            self.site.check_alive()
            self.site.check_clocks()
            raise

    def ensure_site(self, story):
        """Boots the hosts, unless they are there from the scenario before."""
        if self.site is not None:
            return
        story.step("Start two hosts and a witness, connect them, give both the same storage")
        self.site = SITES[self.site_name](self.build_folder)
        self.site.start()
        self.vmm = VMMS[self.vmm_name](self.site)
        self.vmm.prepare()
        story.figure("hosts ready after", self.site.ready_seconds, "s")

    def keep_logs(self, name):
        """Saves what the hosts know about a failure, and shows the end of it."""
        folder = self.logs_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if self.site is None:
            return
        for host in self.site.hosts.values():
            if not host.place.is_alive():
                continue
            logs = host.place.execute("cd /run/lab 2>/dev/null && tail -n 40 *.log *.console; "
                                "dmesg | tail -n 30; ps", timeout=20).out
            (folder / f"{host.name}.txt").write_text(logs)
        self.keep_disks(folder)
        print(f"What the hosts know about it: {folder}")

    def keep_disks(self, folder):
        """Saves what is on the shared storage, which ends with the hosts."""
        for host in (self.site.a, self.site.b):
            if not host.place.is_alive():
                continue
            packed = host.place.execute(f"cd {storage.PATH} && tar cz . | base64",
                                        timeout=KEEP_SECONDS_MAX)
            if packed.code == 0:
                (folder / "shared.tar.gz").write_bytes(base64.b64decode(packed.out))
                return

    def stop_site(self):
        """Ends the hosts."""
        if self.site is not None:
            self.site.stop()
        self.site = None

    def print_summary(self):
        """The tables of results and figures."""
        if self.figures:
            print("\nMeasured:")
            print_table([("scenario", "what", "value", "unit")] +
                        [(name, what, f"{value:.1f}", unit)
                         for name, what, value, unit in self.figures])
        print("\nResults:")
        print_table([("scenario", "result", "seconds", "remark")] +
                    [(name, verdict, f"{seconds:.0f}", remark)
                     for name, verdict, seconds, remark in self.results])
