#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Layers that vm-disk lists, merges, flattens and rebases, judged by QEMU's tools."""

import os
import pathlib
import random
import subprocess
import time

from ferrydisk.operator import MIB, Operator, main


class Layering(Operator):
    """layers."""

    def make_layers(self, count=3, options=()):
        """A raw base with overlays of QEMU on it, and what a guest sees."""
        self.make_raw("base.raw", 24)
        below, layer_format = "base.raw", "raw"
        for number in range(count):
            image = f"{number}.qcow2"
            self.call("qemu-img", "create", "-q", "-f", "qcow2", *options, "-b", below, "-F",
                      layer_format, image)
            self.call("qemu-io", "-f", "qcow2", "-c", f"write -P {number + 1} {number}M 300k",
                      "-c", f"write -z {number + 8}M 200k", image)
            below, layer_format = image, "qcow2"
        self.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", below, "seen.raw")
        return below

    def names(self, image):
        layers = self.json("layers", "list", image)["layers"]
        return [pathlib.Path(layer["image"]).name for layer in layers]

    def test_flatten(self):
        for options in ((), ("-o", "cluster_size=4k"), ("-o", "extended_l2=on,cluster_size=128k"),
                        ("-o", "compat=0.10")):
            with self.subTest(options=options):
                top = self.make_layers(options=options)
                self.assertEqual(self.names(top), ["2.qcow2", "1.qcow2", "0.qcow2", "base.raw"])
                self.disk("layers", "flatten", top)
                self.assertEqual(self.names(top), ["2.qcow2"])
                for name in ("1.qcow2", "0.qcow2", "base.raw"):
                    (self.folder / name).unlink()
                self.satisfies_qemu(top, "seen.raw")
                self.assertNotIn("backing", self.call("qemu-img", "info", top))

    def test_rebase(self):
        top = self.make_layers()
        self.disk("layers", "rebase", top, "-b", "0.qcow2", "-F", "qcow2")
        self.assertEqual(self.names(top), ["2.qcow2", "0.qcow2", "base.raw"])
        (self.folder / "1.qcow2").unlink()
        self.satisfies_qemu(top, "seen.raw")
        self.assertIn("backing file: 0.qcow2", self.call("qemu-img", "info", top))
        self.disk("layers", "rebase", top, "-b", "base.raw", "-F", "raw")
        self.satisfies_qemu(top, "seen.raw")
        os.rename(self.folder / "base.raw", self.folder / "moved.raw")
        self.disk("layers", "rebase", top, "-u", "-b", "moved.raw", "-F", "raw")
        self.satisfies_qemu(top, "seen.raw")
        self.disk("layers", "rebase", top, code=2)
        self.disk("layers", "rebase", top, "-b", "moved.raw", code=2)

    def test_an_image_of_qemu_gets_its_first_backing_image(self):
        self.make_raw("base.raw", 24)
        self.call("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "24M")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 5 7M 1M", "a.qcow2")
        self.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "seen.raw")
        self.disk("layers", "rebase", "a.qcow2", "-b", "base.raw", "-F", "raw")
        self.satisfies_qemu("a.qcow2", "seen.raw")
        self.assertEqual(self.names("a.qcow2"), ["a.qcow2", "base.raw"])
        self.disk("convert", "-f", "raw", "base.raw", "base.qcow2")
        for name, layer_format in (("base.qcow2", "qcow2"), ("base.raw", "raw"),
                                   ("base.qcow2", "qcow2")):
            self.disk("layers", "rebase", "a.qcow2", "-b", name, "-F", layer_format)
            self.satisfies_qemu("a.qcow2", "seen.raw")
            self.assertEqual(self.names("a.qcow2"), ["a.qcow2", name])
            self.assertIn(f"backing file format: {layer_format}",
                          self.call("qemu-img", "info", "a.qcow2"))

    def test_merge(self):
        top = self.make_layers(count=4)
        for number in range(3):
            os.chmod(self.folder / f"{number}.qcow2", 0o444)
        self.disk("layers", "merge", "2.qcow2", "--count", "2")
        self.assertEqual(self.names(top), ["3.qcow2", "2.qcow2", "0.qcow2", "base.raw"])
        self.satisfies_qemu(top, "seen.raw")
        self.assertIn("sealed", self.disk("layers", "merge", top, code=4))

    def test_zeros_hide_what_comes_below_them(self):
        """Where the old image below showed zeros and the new one has data, in clusters of all sizes
        and at ends of all kinds."""
        noise = random.Random(7)
        (self.folder / "new.raw").write_bytes(noise.randbytes(6 * MIB - 1234))
        for shape in ("cluster_size=512", "cluster_size=16k", "cluster_size=64k",
                      "cluster_size=128k", "cluster_size=2M", "extended_l2=on,cluster_size=128k",
                      "extended_l2=on,cluster_size=2M"):
            for size in (0, 512, 3 * MIB + 512, 5 * MIB + 8192 + 77, 7 * MIB):
                with self.subTest(shape=shape, size=size):
                    with open(self.folder / "old.raw", "wb") as old:
                        for at in range(0, size, 300000):
                            old.seek(at)
                            old.write(noise.randbytes(min(5000, size - at)))
                        old.truncate(size)
                    (self.folder / "a.qcow2").unlink(missing_ok=True)
                    self.call("qemu-img", "create", "-q", "-f", "qcow2", "-o", shape, "-b",
                              "old.raw", "-F", "raw", "a.qcow2", 6 * MIB - 512)
                    self.call("qemu-io", "-f", "qcow2", "-c", "write -P 5 2M 70k", "a.qcow2")
                    self.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "a.qcow2",
                              "seen.raw")
                    self.disk("layers", "rebase", "a.qcow2", "-b", "new.raw", "-F", "raw")
                    self.satisfies_qemu("a.qcow2", "seen.raw")

    def test_snapshots_inside_keep_what_they_show(self):
        """They see what is below the image, too, and are not copied when that goes."""
        top = self.make_layers()
        self.call("qemu-img", "snapshot", "-c", "then", top)
        self.call("qemu-img", "convert", "-l", "snapshot.name=then", "-O", "raw", top, "then.raw")
        self.make_raw("other.raw", 24, seed=3)
        for words in (["flatten"], ["rebase", "-b", "other.raw", "-F", "raw"],
                      ["rebase", "-b", "0.qcow2", "-F", "qcow2"]):
            self.assertIn("1 snapshots inside", self.disk("layers", *words, top, code=4))
        self.disk("compare", "--snapshot", "then", top, "then.raw", "-F", "raw")
        self.satisfies_qemu(top, "seen.raw")
        self.disk("snapshot", "-d", "then", top)
        self.disk("layers", "flatten", top)
        self.disk("snapshot", "-c", "then", top)
        self.disk("layers", "flatten", top)
        self.satisfies_qemu(top, "seen.raw")

    def test_what_a_merge_would_lose(self):
        for words, told in ((["snapshot", "-c", "then"], "snapshots inside"),
                            (["bitmap", "--add"], "bitmaps")):
            for number in (1, 2):
                with self.subTest(words=words, number=number):
                    top = self.make_layers(count=4)
                    name = ["map"] if words[0] == "bitmap" else []
                    self.call("qemu-img", *words, f"{number}.qcow2", *name)
                    for layer in range(3):
                        os.chmod(self.folder / f"{layer}.qcow2", 0o444)
                    self.assertIn(told, self.disk("layers", "merge", "2.qcow2", code=4))
                    self.satisfies_qemu(top, "seen.raw")
                    for layer in range(4):
                        (self.folder / f"{layer}.qcow2").unlink()

    def test_an_image_is_not_put_onto_itself(self):
        top = self.make_layers()
        os.symlink(top, self.folder / "link.qcow2")
        for name in (top, "link.qcow2", self.folder / top):
            for how in ([], ["-u"]):
                told = self.disk("layers", "rebase", top, "-b", name, "-F", "qcow2", *how, code=4)
                self.assertIn("onto itself", told)
        self.satisfies_qemu(top, "seen.raw")
        self.call("qemu-img", "rebase", "-u", "-b", top, "-F", "qcow2", top)
        self.assertIn("its own backing", self.disk("info", top, code=1))
        self.assertIn("its own backing", self.disk("layers", "list", top, code=1))

    def test_an_image_in_use_is_left_alone(self):
        top = self.make_layers()
        with subprocess.Popen(["qemu-io", "-f", "qcow2", top], cwd=self.folder,
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as user:
            deadline = time.monotonic() + 20
            while not self.json("layers", "list", top)["layers"][0]["in_use"]:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            self.assertIn("in use", self.disk("layers", "flatten", top, code=5))
            user.communicate(b"quit\n", timeout=20)
        self.satisfies_qemu(top, "seen.raw")


if __name__ == "__main__":
    main()
