# SPDX-License-Identifier: Apache-2.0
"""Ferry's programs on this host, with sockets, certificates and store in one temporary folder."""
import json
import os
import pathlib
import subprocess
import time

from console_log import ConsoleLog


class FerryHost:
    def __init__(self, programs, folder):
        self.programs = pathlib.Path(programs)
        self.folder = pathlib.Path(folder)
        self.environment = dict(os.environ)
        for variable, name in (("FERRY_RUNTIME_DIR", "run"), ("FERRY_STATE_DIR", "state"),
                               ("FERRY_CONFIG_DIR", "config")):
            path = self.folder / name
            path.mkdir(parents=True, exist_ok=True)
            self.environment[variable] = str(path)
        self.processes = []

    def popen(self, program, *args, **kwargs):
        process = subprocess.Popen([self.programs / program, *map(str, args)],
                                   env=self.environment, stdin=subprocess.DEVNULL, **kwargs)
        self.processes.append(process)
        return process

    def run(self, program, *args, timeout_s=120):
        """Runs to the end; the program's own words when it fails."""
        done = subprocess.run([self.programs / program, *map(str, args)], env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout_s, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{program} {' '.join(map(str, args))}: exit {done.returncode}\n"
                               f"{done.stdout}{done.stderr}")
        return done.stdout

    def run_json(self, program, *args, timeout_s=120):
        """The last JSON object that the program printed."""
        lines = self.run(program, *args, "--json", timeout_s=timeout_s).strip()
        try:
            return json.loads(lines)
        except ValueError:
            return json.loads(lines.splitlines()[-1])

    def start_guest(self, name, payload, memory_mib, command_line, cpus=1, extra=()):
        console = ConsoleLog(self.folder / f"{name}.console")
        console.path.unlink(missing_ok=True)  # an earlier guest's "ready" is not this one's
        log = open(self.folder / f"{name}.log", "w", encoding="utf-8")
        self.popen("vm-run", "--name", name, "--memory", memory_mib, "--cpus", cpus, "--kernel",
                   payload, "--append", command_line, "--console", f"file={console.path}",
                   *extra, stdout=log, stderr=log)
        console.wait_ready()
        return console

    def watch_console(self, name):
        """Copies a running machine's console to a file from here on."""
        console = ConsoleLog(self.folder / f"{name}.watched")
        with open(console.path, "wb") as output:
            self.popen("vm-ctl", "console", name, stdout=output, stderr=output)
        return console

    def status(self, name):
        return self.run_json("vm-ctl", "status", name)

    def pid_of(self, name):
        return self.status(name)["pid"]

    def private_kib(self, name):
        """Private memory of the machine's process without the guest's RAM."""
        total, is_counted = 0, False
        with open(f"/proc/{self.pid_of(name)}/smaps", encoding="ascii") as mappings:
            for row in mappings:
                words = row.split()
                if not words[0].endswith(":"):
                    is_counted = not row.rstrip().endswith("/memfd:guest-memory (deleted)")
                elif is_counted and words[0] in ("Private_Clean:", "Private_Dirty:"):
                    total += int(words[1])
        return total

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        # Machines that a worker started are not our children; their sockets name them.
        for path in (self.folder / "run").glob("*.sock"):
            subprocess.run([self.programs / "vm-ctl", "quit", path.stem], env=self.environment,
                           capture_output=True, timeout=10, check=False)


def wait_until(condition, what, timeout_s=30):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError(f"{what}: not within {timeout_s} s")
