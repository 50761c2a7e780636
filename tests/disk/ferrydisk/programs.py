# SPDX-License-Identifier: Apache-2.0
"""The programs that make, change and judge images."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

BUILD = pathlib.Path(os.environ.get("FERRY_BUILD", "build/dev"))


class Failure(Exception):
    """What a program said that it should not have."""


class Refused(Exception):
    """Ours does not take such an image."""


def has_qemu():
    """Are QEMU's tools for images here?"""
    return all(shutil.which(program) for program in ("qemu-img", "qemu-io"))


def qemu_img(folder, *words, allowed=(0,)):
    """Runs qemu-img in the folder; gives what it printed."""
    done = subprocess.run(["qemu-img", *map(str, words)], cwd=folder, capture_output=True,
                          text=True, errors="replace", check=False)
    if done.returncode not in allowed:
        raise Failure(f"qemu-img {' '.join(map(str, words))}: exit code {done.returncode}: "
                      f"{(done.stderr or done.stdout)[:600]}")
    return done.stdout


def qemu_io(folder, name, commands, extra=()):
    """Runs all commands in one process."""
    done = subprocess.run(["qemu-io", "-f", "qcow2", "-t", "writeback", "-d", "unmap", *extra,
                           name], cwd=folder, input="\n".join(commands) + "\nquit\n",
                          capture_output=True, text=True, errors="replace", check=False)
    said = done.stdout + done.stderr
    if done.returncode != 0 or "failed" in said or "error" in said.lower():
        raise Failure(f"qemu-io: exit code {done.returncode}: {said[:600]}")


@contextlib.contextmanager
def qemu_nbd(folder, name):
    """QEMU serves the image at the path that this gives."""
    path = folder / "qemu-nbd.socket"
    server = subprocess.Popen(["qemu-nbd", "--read-only", "--persistent", "--format=qcow2",
                               f"--socket={path}", name], cwd=folder, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        while not path.exists():
            if server.poll() is not None:
                raise Failure(f"qemu-nbd does not serve {name}")
            time.sleep(0.001)
        yield path
    finally:
        server.kill()
        server.wait()
        path.unlink(missing_ok=True)


class Exerciser:
    """disk_exerciser, kept running."""

    def __init__(self, folder, variables=None):
        self.process = subprocess.Popen([(BUILD / "tests" / "disk-exerciser").resolve()],
                                        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1,
                                        env={**os.environ, **(variables or {})})

    def do(self, *words):
        """One command; gives the lines of its answer but the `ok`, whose words are the last."""
        command = " ".join(map(str, words))
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "ok":
                return lines + [rest]
            if kind == "error":
                raise (Refused if words[0] == "open" else Failure)(f"{command}: {rest}")
            lines.append(rest)
        raise Failure(f"{command}: the exerciser died with {self.process.wait()}")

    def finish(self):
        """Closes its input; it must end well."""
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()
