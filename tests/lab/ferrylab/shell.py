# SPDX-License-Identifier: Apache-2.0
"""Runs programs on the machine that the lab runs on."""

import subprocess

from ferrylab.trouble import LabTrouble


def run(*command, cwd=None, stdin=None):
    """Runs a program and returns its output; a failure tells what it printed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, stdin=stdin or subprocess.DEVNULL, text=True,
                              capture_output=True, check=False)
    except FileNotFoundError as missing:
        raise LabTrouble(f"'{words[0]}' is not installed; 'sh tests/run' installs it") from missing
    if done.returncode != 0:
        raise LabTrouble(f"'{' '.join(words)}' ended with status {done.returncode}\n"
                         f"{done.stdout}{done.stderr}")
    return done.stdout
