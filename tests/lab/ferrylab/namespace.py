# SPDX-License-Identifier: Apache-2.0
"""A host that is a network and mount namespace of this machine, where KVM runs Linux natively.

It has its own cards, its own /run, and its own folders for Ferry; the kernel, KVM and programs are
those of this machine. Nothing is left when its one process ends.
"""

import os
import pathlib
import subprocess

from ferrylab import agent
from ferrylab.emulator import die_with_parent
from ferrylab.trouble import LabTrouble


class Namespace:
    """One running host, as seen from outside it."""

    def __init__(self, name, folder, search_path):
        self.name = name
        self.folder = pathlib.Path(folder) / name
        self.process = None
        self.environment = dict(
            os.environ, PATH=search_path, FERRY_RUNTIME_DIR="/run/ferry",
            FERRY_STATE_DIR=str(self.folder / "state"),
            FERRY_CONFIG_DIR=str(self.folder / "config"))

    def start(self, srv):
        """Creates the namespaces; the folder `srv` becomes /srv in them."""
        run = self.folder / "run"
        (run / "checks").mkdir(parents=True)
        # The word READY says that the mounts are in place before anything else looks.
        setup = (f"mount --bind {run} /run && mount --bind {srv} /srv && ip link set lo up && "
                 "echo READY && exec sleep infinity")
        self.process = subprocess.Popen(["unshare", "--net", "--mount", "sh", "-c", setup],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        text=True, preexec_fn=die_with_parent)
        if self.process.stdout.readline().strip() != "READY":
            raise LabTrouble(f"can not make namespaces for '{self.name}'; user namespaces may be "
                             "switched off (sysctl kernel.unprivileged_userns_clone)")

    def execute(self, command, stdin=b"", timeout=120):
        """Runs a shell command in the namespaces."""
        words = ["nsenter", "-t", str(self.process.pid), "--net", "--mount", "sh", "-c", command]
        try:
            done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout,
                                  env=self.environment, check=False)
        except subprocess.TimeoutExpired:
            return agent.Output(agent.UNREACHABLE, "", f"no answer within {timeout} s")
        return agent.Output(done.returncode, done.stdout.decode(errors="replace"),
                            done.stderr.decode(errors="replace"))

    def is_alive(self):
        """Whether the namespaces are there."""
        return self.process is not None and self.process.poll() is None

    def check_alive(self):
        """A namespace does not die by itself."""

    def stop(self):
        """Ends the namespaces; the programs in them were ended with their scenario."""
        if self.is_alive():
            self.process.kill()
            self.process.wait()
