#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vm-disk as an operator uses it, judged by QEMU's tools and by what it says when it refuses."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
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


class Making(Operator):
    """create and convert."""

    SHAPES = ([], ["--cluster-size", "4k"], ["--cluster-size", "2M", "--refcount-bits", "1"],
              ["--qcow-version", "2"], ["--preallocation", "metadata"])

    def test_raw_to_qcow2_and_back(self):
        raw = self.make_raw("a.raw", 24)
        for number, shape in enumerate(self.SHAPES):
            with self.subTest(shape=shape):
                image = f"{number}.qcow2"
                self.disk("convert", "-f", "raw", raw, image, *shape)
                self.satisfies_qemu(image, raw)
                self.disk("convert", "-O", "raw", image, "back.raw", "--force")
                self.call("cmp", raw, "back.raw")

    def test_images_of_qemu_are_read(self):
        raw = self.make_raw("a.raw", 24)
        for number, options in enumerate(("compat=0.10", "compression_type=zstd",
                                          "cluster_size=512", "refcount_bits=64")):
            image = f"{number}.qcow2"
            self.call("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw,
                      image)
            self.disk("compare", "-F", "raw", image, raw)

    def test_holes_stay_holes(self):
        self.make_raw("a.raw", 64)
        report = self.json("convert", "-f", "raw", "a.raw", "a.qcow2")
        self.assertLess(report["data_bytes"], 16 * MIB)
        self.disk("convert", "-O", "raw", "a.qcow2", "b.raw")
        self.assertLess((self.folder / "b.raw").stat().st_blocks * 512, 20 * MIB)

    def test_an_overlay_is_as_large_as_its_backing_image(self):
        raw = self.make_raw("a.raw", 24)
        self.disk("create", "-b", raw, "-F", "raw", "over.qcow2")
        self.satisfies_qemu("over.qcow2", raw)
        layers = self.json("info", "over.qcow2")["layers"]
        self.assertEqual([layer["format"] for layer in layers], ["qcow2", "raw"])
        self.assertEqual(layers[0]["virtual_bytes"], 24 * MIB)

    def test_a_chain_is_flattened(self):
        raw = self.make_raw("a.raw", 24)
        self.disk("create", "-b", raw, "-F", "raw", "one.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 70k", "one.qcow2")
        self.disk("create", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -z 5M 1M", "two.qcow2")
        self.disk("convert", "two.qcow2", "flat.qcow2")
        self.call("qemu-img", "check", "-q", "flat.qcow2")
        self.call("qemu-img", "compare", "-q", "two.qcow2", "flat.qcow2")
        self.assertEqual(len(self.json("info", "flat.qcow2")["layers"]), 1)


class Comparing(Operator):
    """compare."""

    def test_the_first_difference_is_told(self):
        raw = self.make_raw("a.raw", 24)
        self.disk("convert", "-f", "raw", raw, "a.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 7 9999872 512", "a.qcow2")
        told = self.disk("compare", "-F", "raw", "a.qcow2", raw, code=1)
        self.assertIn("offset 9999872", told)

    def test_a_longer_image_is_equal_if_it_ends_in_zeros(self):
        self.disk("create", "-f", "raw", "a.raw", "1M")
        self.disk("create", "b.qcow2", "2M")
        self.disk("compare", "-f", "raw", "a.raw", "b.qcow2")
        self.disk("compare", "-f", "raw", "a.raw", "b.qcow2", "--strict", code=4)


class Refusing(Operator):
    """What goes wrong leaves nothing behind, and says what to do."""

    def assert_nothing_new(self, *expected):
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(expected))

    def test_an_image_that_is_there_is_kept(self):
        self.disk("create", "a.qcow2", "1M")
        self.assertIn("--force", self.disk("create", "a.qcow2", "2M", code=4))
        self.assertEqual(self.json("info", "a.qcow2")["layers"][0]["virtual_bytes"], MIB)
        self.disk("create", "a.qcow2", "2M", "--force")
        self.assertEqual(self.json("info", "a.qcow2")["layers"][0]["virtual_bytes"], 2 * MIB)

    def test_options_that_make_no_sense(self):
        for words in (["a.qcow2", "12Q"], ["a.qcow2"], ["a.qcow2", "1M", "--cluster-size", "3k"],
                      ["a.qcow2", "1M", "-f", "vmdk"], ["a.qcow2", "1M", "-b", "x"],
                      ["a.raw", "1M", "-f", "raw", "-b", "x", "-F", "raw"],
                      ["a.qcow2", "1M", "--refcount-bits", "3"]):
            with self.subTest(words=words):
                self.disk("create", *words, code=1)
        self.assert_nothing_new()

    def test_a_backing_image_that_is_not_there(self):
        self.assertIn("no image", self.disk("create", "-b", "x.raw", "-F", "raw", "a.qcow2", code=3))
        self.assert_nothing_new()

    def test_a_backing_image_elsewhere_must_be_allowed(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            base = pathlib.Path(elsewhere) / "base.raw"
            base.write_bytes(bytes(MIB))
            words = ["create", "-b", base, "-F", "raw", "a.qcow2"]
            self.assertIn("--image-folder", self.disk(*words, code=5))
            self.assert_nothing_new()
            self.disk(*words, "--image-folder", elsewhere)
            self.disk("info", "a.qcow2", "--image-folder", elsewhere)

    def test_a_full_file_system(self):
        small = self.folder / "small"
        small.mkdir()
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs",
                                                small], check=False).returncode != 0:
            self.skipTest("can not mount a small file system: needs root")
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        raw = self.make_raw("a.raw", 24)
        told = self.disk("convert", "-f", "raw", raw, "small/a.qcow2", code=1)
        self.assertIn("No space left", told)
        self.assertEqual(os.listdir(small), [])

    def test_ctrl_c_removes_what_was_begun(self):
        (self.folder / "a.raw").touch()
        os.truncate(self.folder / "a.raw", 1 << 40)
        with subprocess.Popen([BUILD / "bin" / "vm-disk", "convert", "-f", "raw", "a.raw",
                               "a.qcow2", "--cluster-size", "2M"], cwd=self.folder,
                              stderr=subprocess.PIPE) as process:
            while not (self.folder / "a.qcow2.part").exists():
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            self.assertEqual(process.returncode, 130)
        self.assert_nothing_new("a.raw")


if __name__ == "__main__":
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img is not installed (apt: qemu-utils)")
        sys.exit(SKIPPED)
    unittest.main()
