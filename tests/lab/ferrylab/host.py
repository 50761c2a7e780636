# SPDX-License-Identifier: Apache-2.0
"""A machine of the lab, as scenarios use it: commands, files, programs left running."""

import shlex
import time

from ferrylab import agent, network
from ferrylab.trouble import CommandFailed, Failure

RUN_FOLDER = "/run/lab"


class Host:
    """host-a, host-b or the witness, on whatever runs it: an Emulator or a Namespace."""

    def __init__(self, name, place):
        self.name = name
        self.place = place

    def try_run(self, command, timeout=120, stdin=b""):
        """Runs a shell command and returns its Output, whatever its status."""
        output = self.place.execute(command, stdin, timeout)
        if output.code == agent.UNREACHABLE:
            self.place.check_alive()
        return output

    def run(self, command, timeout=120, stdin=b""):
        """Runs a shell command that must succeed; returns what it printed."""
        output = self.try_run(command, timeout, stdin)
        if output.code != 0:
            raise CommandFailed(self.name, command, output)
        return output.out.strip()

    def start(self, program, command):
        """Leaves a command running; its output goes to a log that `log` returns."""
        quoted = shlex.quote(f"exec {command}")
        self.run(f"mkdir -p {RUN_FOLDER}; cd {RUN_FOLDER}; setsid sh -c {quoted} < /dev/null "
                 f"> {program}.log 2>&1 & echo $! > {RUN_FOLDER}/{program}.pid")

    def log(self, program):
        """What a started program has printed so far."""
        return self.try_run(f"cat {RUN_FOLDER}/{program}.log 2>/dev/null").out

    def kill(self, program, signal="KILL"):
        """Sends a signal to a started program."""
        self.try_run(f"kill -{signal} $(cat {RUN_FOLDER}/{program}.pid) 2>/dev/null")

    def is_running(self, program):
        """Whether a started program is still there."""
        return self.try_run(f"kill -0 $(cat {RUN_FOLDER}/{program}.pid)").code == 0

    def write_file(self, path, text):
        """Creates a file."""
        self.run(f"cat > {path}", stdin=text.encode())

    def put(self, source, target):
        """Copies a file from the machine that the lab runs on."""
        with open(source, "rb") as file:
            self.run(f"cat > {target}", stdin=file.read())

    def wait_for(self, what, condition, timeout):
        """Polls until `condition` returns something true, and returns that."""
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise Failure(f"{self.name}: {what}: not within {timeout} s")
            self.place.check_alive()
            time.sleep(0.1)

    def cut(self, card):
        """Pulls a cable at this host's end."""
        self.place.set_link(f"nic-{card}", False)

    def mend(self, card):
        """Plugs the cable in again."""
        self.place.set_link(f"nic-{card}", True)

    def set_up_network(self):
        """Brings up the networks, after which the hosts know each other by name."""
        self.write_file("/etc/hosts", network.HOSTS_FILE)
        self.run(" && ".join(network.setup_commands(self.name)))
