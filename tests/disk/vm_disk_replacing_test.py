#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What vm-disk must not write over: images that somebody uses, sealed ones, and what is no file."""

import contextlib
import os
import signal
import stat
import subprocess
import time
import unittest

from ferrydisk.operator import BUILD, MIB, Operator, main


class Replacing(Operator):
    """create and convert with --force."""

    MAKERS = (("create", "{}", "1M", "--force"), ("convert", "source.qcow2", "{}", "--force"),
              ("convert", "-O", "raw", "source.qcow2", "{}", "--force"))

    def setUp(self):
        super().setUp()
        self.make_raw("a.raw", 8)
        self.disk("convert", "-f", "raw", "a.raw", "source.qcow2")
        self.disk("convert", "-f", "raw", "a.raw", "a.qcow2")

    def refuses(self, name, word, code):
        """All that would replace it; nothing new is in the folder."""
        before = sorted(os.listdir(self.folder))
        status = os.lstat(self.folder / name)
        for maker in self.MAKERS:
            with self.subTest(maker=maker):
                told = self.disk(*(part.format(name) for part in maker), code=code)
                self.assertIn(word, told)
                self.assertEqual(os.lstat(self.folder / name).st_ino, status.st_ino)
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    @contextlib.contextmanager
    def used(self, *words):
        """An image that qemu-io has open."""
        with subprocess.Popen(["qemu-io", *words], cwd=self.folder, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as user:
            user.stdin.write(b"read 0 512\n")
            user.stdin.flush()
            user.stdout.readline()
            yield
            user.communicate(b"quit\n", timeout=20)

    def test_an_image_in_use(self):
        with self.used("-f", "qcow2", "a.qcow2"):
            self.refuses("a.qcow2", "in use", 5)
        self.disk("create", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
        with self.used("-f", "qcow2", "over.qcow2"):
            self.refuses("a.qcow2", "in use", 5)
            self.refuses("over.qcow2", "in use", 5)
        self.disk("convert", "source.qcow2", "a.qcow2", "--force", "-c", "zlib")
        self.satisfies_qemu("a.qcow2", "a.raw")

    def test_a_sealed_image(self):
        os.chmod(self.folder / "a.qcow2", 0o444)
        self.refuses("a.qcow2", "sealed", 4)
        self.assertIn("sealed", self.disk("convert", "a.qcow2", "a.qcow2", "--force", code=4))
        self.satisfies_qemu("a.qcow2", "a.raw")

    def test_what_the_new_image_stands_on(self):
        self.disk("create", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
        for backing in ("a.qcow2", "over.qcow2"):
            told = self.disk("create", "--force", "-b", backing, "-F", "qcow2", "a.qcow2", code=4)
            self.assertIn("stands on it", told)
        self.satisfies_qemu("a.qcow2", "a.raw")
        self.satisfies_qemu("over.qcow2", "a.raw")

    def test_an_image_takes_its_own_place(self):
        self.disk("convert", "-c", "zstd", "a.qcow2", "a.qcow2", "--force")
        self.satisfies_qemu("a.qcow2", "a.raw")
        self.disk("create", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
        with self.used("-f", "qcow2", "over.qcow2"):
            self.assertIn("in use", self.disk("convert", "a.qcow2", "a.qcow2", "--force", code=5))
        self.satisfies_qemu("over.qcow2", "a.raw")

    def test_what_is_no_file(self):
        os.mkfifo(self.folder / "pipe")
        (self.folder / "folder").mkdir()
        os.symlink("nothing", self.folder / "broken")
        self.refuses("pipe", "no file", 4)
        self.refuses("folder", "no file", 4)
        self.refuses("broken", "leads nowhere", 4)
        for name in ("pipe", "folder"):
            told = self.disk("create", name, "1M", code=4)
            self.assertNotIn("remove", told)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to make a device")
    def test_a_block_device(self):
        try:
            os.mknod(self.folder / "device", stat.S_IFBLK | 0o600, os.makedev(7, 200))
        except PermissionError:
            self.skipTest("can not make a device here")
        self.refuses("device", "no file", 4)

    def test_a_link_stays(self):
        (self.folder / "far").mkdir()
        os.rename(self.folder / "a.qcow2", self.folder / "far" / "real.qcow2")
        os.symlink("far/real.qcow2", self.folder / "a.qcow2")
        self.assertIn("there already", self.disk("create", "a.qcow2", "1M", code=4))
        self.disk("create", "a.qcow2", "1M", "--force")
        self.assertTrue((self.folder / "a.qcow2").is_symlink())
        self.assertEqual(self.json("info", "far/real.qcow2")["layers"][0]["virtual_bytes"], MIB)
        self.assertEqual(os.listdir(self.folder / "far"), ["real.qcow2"])


class Writing(Operator):
    """What changes an image in place."""

    def test_a_sealed_image_is_left_alone(self):
        self.disk("create", "a.qcow2", "8M")
        self.disk("snapshot", "-c", "old", "a.qcow2")
        self.disk("bitmap", "--add", "a.qcow2", "map")
        with open(self.folder / "a.qcow2", "r+b") as image: # a leak
            image.seek(int.from_bytes(image.read(56)[48:], "big"))
            block = int.from_bytes(image.read(8), "big")
            image.seek(block)
            image.write(b"\0\2")
        os.chmod(self.folder / "a.qcow2", 0o444)
        before = (self.folder / "a.qcow2").read_bytes()
        for words in (["snapshot", "-c", "new"], ["snapshot", "-a", "old"],
                      ["snapshot", "-d", "old"], ["bitmap", "--add", "two"],
                      ["bitmap", "--clear", "map"], ["bitmap", "--remove", "map"],
                      ["check", "-r", "leaks", "--yes"], ["check", "-r", "all", "--yes"]):
            with self.subTest(words=words):
                words.insert(-1 if words[0] == "bitmap" else 1, "a.qcow2")
                self.assertIn("sealed", self.disk(*words, code=4))
                self.assertEqual((self.folder / "a.qcow2").read_bytes(), before)
        self.disk("snapshot", "-l", "a.qcow2")
        self.disk("check", "a.qcow2")

    def as_nobody(self, *words):
        """Exit status and reason of vm-disk for somebody who may not write everything."""
        done = subprocess.run([BUILD / "bin" / "vm-disk", *words], cwd=self.folder, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              **({"user": 65534, "group": 65534} if os.geteuid() == 0 else {}))
        return done.returncode, done.stderr

    def test_what_is_not_permitted(self):
        self.disk("create", "a.qcow2", "8M")
        self.disk("create", "b.qcow2", "8M")
        os.chmod(self.folder, 0o755)
        os.chmod(self.folder / "a.qcow2", 0o444)
        os.chmod(self.folder / "b.qcow2", 0o600 if os.geteuid() == 0 else 0)
        try:
            self.assertEqual(self.as_nobody("info", "a.qcow2"), (0, ""))
        except PermissionError:
            self.skipTest("the program is not for everybody here")
        for words in (["snapshot", "-c", "x"], ["check", "-r", "all", "-y"], ["resize", "+1M"],
                      ["layers", "flatten"]):
            words.insert(1 if words[0] == "resize" else len(words), "a.qcow2")
            code, told = self.as_nobody(*words)
            self.assertEqual(code, 4, told)
            self.assertIn("sealed", told)
        if os.geteuid() == 0:
            self.call("qemu-img", "create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2",
                      "over.qcow2", "8M")
        os.chmod(self.folder, 0o555)
        for words in (["info", "b.qcow2"], ["check", "b.qcow2"], ["convert", "b.qcow2", "c.qcow2"],
                      ["convert", "a.qcow2", "c.qcow2"], ["create", "c.qcow2", "1M"],
                      *([["convert", "over.qcow2", "c.qcow2"], ["snapshot", "-c", "x", "over.qcow2"]]
                        if os.geteuid() == 0 else [])):
            code, told = self.as_nobody(*words)
            self.assertEqual(code, 5, told)
            self.assertIn("Permission denied", told)
        os.chmod(self.folder, 0o755)

    def test_ctrl_c_while_space_is_taken(self):
        """The host is busy for long in one call, or many."""
        for words in (["-f", "raw"], []):
            for number in (signal.SIGINT, signal.SIGTERM):
                with subprocess.Popen([BUILD / "bin" / "vm-disk", "create", "a.img", "64G",
                                       "--preallocation", "full", *words],
                                      cwd=self.folder) as process:
                    part = self.folder / "a.img.part"
                    while not part.exists() or part.stat().st_size < MIB:
                        self.assertIsNone(process.poll())
                        time.sleep(0.01)
                    process.send_signal(number)
                    self.assertEqual(process.wait(20), 130)
                self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    main()
