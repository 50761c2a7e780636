# SPDX-License-Identifier: Apache-2.0
"""Who types vm-disk commands: a folder of images, and the programs that work on them."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(os.environ["FERRY_BUILD"])
MIB = 1 << 20
SKIPPED = 77


class Operator(unittest.TestCase):
    """A folder of images and the programs that work on them."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vm-disk."))
        self.addCleanup(shutil.rmtree, self.folder)

    def call(self, *words, code=0):
        """Runs a program in the folder, which must end with this code; returns what it said."""
        done = subprocess.run([str(word) for word in words], cwd=self.folder, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=120)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout if code == 0 else done.stderr

    def disk(self, *words, code=0):
        """Runs vm-disk."""
        return self.call(BUILD / "bin" / "vm-disk", *words, code=code)

    def json(self, *words):
        """What vm-disk says for programs."""
        return json.loads(self.disk(*words, "--json"))

    def make_raw(self, name, mebibytes, seed=1):
        """A raw image with text, noise and holes."""
        noise = random.Random(seed)
        with open(self.folder / name, "wb") as raw:
            raw.truncate(mebibytes * MIB)
            for at in range(0, mebibytes * MIB, 3 * MIB):
                raw.seek(at + noise.randrange(MIB) // 512 * 512)
                raw.write(noise.randbytes(300000) + b"the same again " * 20000)
        return name

    def satisfies_qemu(self, image, raw):
        """No error, no leak, and the content is that of the raw image."""
        self.call("qemu-img", "check", "-q", "-f", "qcow2", image)
        self.call("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", image, raw)


def main():
    """Runs the tests of the calling file, which QEMU's tools judge."""
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img is not installed (apt: qemu-utils)")
        sys.exit(SKIPPED)
    unittest.main(module="__main__")
