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
import tempfile
import time

from ferrydisk.operator import BUILD, MIB, Operator, main


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

    def test_compressed_images(self):
        raw = self.make_raw("a.raw", 24)
        plain = self.json("convert", "-f", "raw", raw, "plain.qcow2")
        for number, shape in enumerate((["zlib"], ["zstd"], ["zlib", "--cluster-size", "4k"],
                                        ["zstd", "--cluster-size", "2M"],
                                        ["zlib", "--cluster-size", "512"],
                                        ["zlib", "--refcount-bits", "1"],
                                        ["zlib", "--qcow-version", "2"],
                                        ["zstd", "--extended-l2", "--cluster-size", "128k"],
                                        ["zlib", "--threads", "7"])):
            with self.subTest(shape=shape):
                image = f"{number}.qcow2"
                report = self.json("convert", "-f", "raw", raw, image, "-c", *shape)
                self.satisfies_qemu(image, raw)
                self.disk("compare", "-F", "raw", image, raw)
                if "512" not in shape and "2M" not in shape: # where tables weigh more
                    self.assertGreater(report["packed_bytes"], 2 * MIB)
                    self.assertLess(report["stream_bytes"], report["packed_bytes"] / 2)
                    self.assertLess((self.folder / image).stat().st_blocks,
                                    (self.folder / "plain.qcow2").stat().st_blocks)
                self.disk("convert", image, "plain.raw", "-O", "raw", "--force")
                self.call("cmp", raw, "plain.raw")
        self.assertEqual((self.folder / "0.qcow2").read_bytes(),
                         (self.folder / "8.qcow2").read_bytes())
        self.assertEqual(plain["packed_bytes"], 0)

    def test_qemu_writes_to_what_was_compressed(self):
        raw = self.make_raw("a.raw", 24)
        self.disk("convert", "-f", "raw", raw, "a.qcow2", "-c", "zlib")
        words = ("-c", "write -P 9 0 70k", "-c", "write -P 8 3M 1M", "-c", "discard 6M 1M")
        self.call("qemu-io", "-f", "qcow2", *words, "a.qcow2")
        self.call("qemu-io", "-f", "raw", *words, raw)
        self.satisfies_qemu("a.qcow2", raw)
        self.disk("compare", "-F", "raw", "a.qcow2", raw)

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


class Looking(Operator):
    """map and measure."""

    KEYS = ("start", "length", "depth", "present", "zero", "data", "offset")

    def test_the_map_is_that_of_qemu(self):
        raw = self.make_raw("a.raw", 24)
        self.call("qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", "one.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 70k", "-c", "write -z 9M 1M",
                  "one.qcow2")
        self.call("qemu-img", "create", "-q", "-f", "qcow2", "-o",
                  "extended_l2=on,cluster_size=128k", "-b", "one.qcow2", "-F", "qcow2",
                  "two.qcow2", "30M")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 7 1028k 4k", "-c", "write -z 12M 8k",
                  "two.qcow2")
        for image in ("one.qcow2", "two.qcow2"):
            ours = self.json("map", image)
            theirs = json.loads(self.call("qemu-img", "map", "-f", "qcow2", "--output=json", image))
            with self.subTest(image=image):
                self.assertEqual(list(self.sectors(ours)), list(self.sectors(theirs)))

    def sectors(self, extents):
        """One tuple for each 4 KiB; what holds zeros needs no offset and no depth."""
        for extent in extents:
            for at in range(0, extent["length"], 4096):
                yield (extent["start"] + at, extent["data"],
                       extent["data"] and (extent["depth"], extent["offset"] + at))

    def test_measure_says_what_qemu_says_and_is_enough(self):
        raw = self.make_raw("a.raw", 24)
        for shape, theirs in (([], []), (["--cluster-size", "4k"], ["-o", "cluster_size=4k"]),
                              (["--cluster-size", "2M"], ["-o", "cluster_size=2M"])):
            with self.subTest(shape=shape):
                ours = self.json("measure", "-f", "raw", raw, *shape)
                told = json.loads(self.call("qemu-img", "measure", "-f", "raw", "-O", "qcow2",
                                            "--output=json", *theirs, raw))
                self.assertEqual(ours, {"required_bytes": told["required"],
                                        "full_bytes": told["fully-allocated"]})
                self.disk("convert", "-f", "raw", raw, "a.qcow2", "--force", *shape)
                size = (self.folder / "a.qcow2").stat().st_size
                self.assertLessEqual(size, ours["required_bytes"])
        self.disk("create", "b.qcow2", "1M", "--cluster-size", "512")
        self.disk("bench", "-w", "--pattern", 7, "-c", 500, "-s", 512, "-S", 2048, "b.qcow2")
        self.disk("convert", "b.qcow2", "c.qcow2", "--cluster-size", "512")
        self.assertLessEqual((self.folder / "c.qcow2").stat().st_size,
                             self.json("measure", "b.qcow2", "--cluster-size",
                                       "512")["required_bytes"])
        for how in ("metadata", "falloc", "full"):
            for output in ("qcow2", "raw"):
                if (how, output) == ("metadata", "raw"):
                    continue
                ours = self.json("measure", "-f", "raw", raw, "-O", output, "--preallocation", how)
                told = json.loads(self.call("qemu-img", "measure", "-f", "raw", "-O", output, "-o",
                                            f"preallocation={how}", "--output=json", raw))
                if output == "raw": # of which QEMU says nothing but the size
                    told["required"] = told["fully-allocated"]
                self.assertEqual(ours, {"required_bytes": told["required"],
                                        "full_bytes": told["fully-allocated"]}, (how, output))
        empty = self.json("measure", "--size", "1T")
        self.assertLess(empty["required_bytes"], 1 << 30)
        self.disk("measure", code=2)


class Comparing(Operator):
    """compare."""

    def test_large_disks_with_little_in_them_are_quick(self):
        for name in ("a.qcow2", "b.qcow2"):
            self.disk("create", name, "64T", "--cluster-size", "2M")
            self.call("qemu-io", "-f", "qcow2", "-c", "write -P 1 50T 4k", name)
        self.disk("compare", "a.qcow2", "b.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 2 60T 4k", "b.qcow2")
        self.assertIn(str(60 << 40), self.disk("compare", "a.qcow2", "b.qcow2", code=1))

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


class Checking(Operator):
    """check."""

    def make(self):
        raw = self.make_raw("a.raw", 24)
        self.disk("convert", "-f", "raw", raw, "a.qcow2")
        return raw

    def damage(self, offset, data):
        with open(self.folder / "a.qcow2", "r+b") as image:
            image.seek(offset)
            image.write(data)

    def read_be64(self, offset):
        with open(self.folder / "a.qcow2", "rb") as image:
            image.seek(offset)
            return int.from_bytes(image.read(8), "big")

    def first_block(self):
        return self.read_be64(self.read_be64(48))

    def test_sound_images_of_qemu(self):
        raw = self.make_raw("a.raw", 24)
        for number, options in enumerate(("compat=0.10", "extended_l2=on,cluster_size=128k",
                                          "refcount_bits=1", "cluster_size=512")):
            image = f"{number}.qcow2"
            self.call("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw,
                      image)
            self.call("qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 300k", image)
            if "bits=1" not in options:
                for name in "xy":
                    self.call("qemu-img", "snapshot", "-c", name, image)
                    self.call("qemu-io", "-f", "qcow2", "-c", "write -P 8 1M 70k", image)
            if "0.10" not in options:
                self.call("qemu-img", "bitmap", "--add", image, "b")
            result = self.json("check", image)["result"]
            self.assertEqual((result["errors"], result["leaks"]), (0, 0), options)
            theirs = json.loads(self.call("qemu-img", "check", "--output=json", image))
            self.assertEqual(result["image_end"], theirs["image-end-offset"])
            self.assertEqual(result["allocated_clusters"], theirs["allocated-clusters"])

    def test_leaks_are_found_and_put_right(self):
        raw = self.make()
        self.damage(self.first_block(), b"\0\2")
        self.assertEqual(self.json("check", "a.qcow2")["result"]["leaks"], 1)
        self.assertIn("--yes", self.disk("check", "-r", "leaks", "a.qcow2", code=4))
        self.disk("check", "-r", "leaks", "--yes", "a.qcow2")
        self.satisfies_qemu("a.qcow2", raw)

    def test_compressed_data_that_is_cut_off(self):
        """A stream that would begin behind the end of the file, in its last cluster: to QEMU that is
        an error if a cluster or more is missing, to us in any case."""
        verdicts = []
        for seed in range(6):
            noise = random.Random(seed)
            with open(self.folder / "a.raw", "wb") as raw:
                for _ in range(16):
                    raw.write(noise.randbytes(noise.randrange(30000, 60000)))
                    raw.seek(raw.tell() // 65536 * 65536 + 65536)
                raw.truncate(MIB)
            self.disk("convert", "--force", "-f", "raw", "a.raw", "a.qcow2", "-c", "zlib")
            table = self.read_be64(self.read_be64(40)) & 0xfffffffffffe00
            last = max(self.read_be64(table + 8 * at) & ((1 << 54) - 1) for at in range(16))
            os.truncate(self.folder / "a.qcow2", last // 65536 * 65536 + 1)
            verdicts.append(subprocess.run(["qemu-img", "check", "-q", "a.qcow2"], check=False,
                                           cwd=self.folder, capture_output=True).returncode)
            self.assertIn("damaged", self.disk("check", "a.qcow2", code=1))
        self.assertIn(2, verdicts)

    def test_lost_counts_are_made_anew(self):
        raw = self.make()
        self.damage(self.first_block(), bytes(65536))
        self.assertIn("damaged", self.disk("check", "a.qcow2", code=1))
        self.call("qemu-img", "check", "a.qcow2", code=2)
        self.disk("check", "-r", "all", "--yes", "a.qcow2")
        self.satisfies_qemu("a.qcow2", raw)

    def test_a_repair_gives_nothing_away(self):
        """A damaged record of one snapshot: what all of them hold is still there when it is put
        back."""
        for lost in (False, True): # is the count of the header lost, too?
            for shape in ("cluster_size=4k", "cluster_size=512,refcount_bits=64"):
                with self.subTest(lost=lost, shape=shape):
                    self.make_snapshots(shape)
                    table = self.read_be64(64)
                    good = self.read_be64(table)
                    self.damage(table, (good + 100).to_bytes(8, "big"))
                    end = (self.folder / "a.qcow2").stat().st_size
                    if lost:
                        self.damage(self.first_block(), bytes(8 if "64" in shape else 2))
                    self.disk("check", "-r", "leaks", "--yes", "a.qcow2", code=4)
                    told = self.disk("check", "-r", "all", "--yes", "a.qcow2", code=1)
                    self.assertIn("can not be repaired", told)
                    self.damage(table, good.to_bytes(8, "big"))
                    self.call("qemu-img", "check", "-q", "a.qcow2")
                    self.assertLessEqual((self.folder / "a.qcow2").stat().st_size, end * 2)
                    for name in ("s0", "s1", "s2"):
                        self.disk("compare", "--snapshot", name, "a.qcow2", f"{name}.raw", "-F",
                                  "raw")

    def make_snapshots(self, shape):
        """Three, which share much, and what they hold as raw images."""
        raw = self.make_raw("a.raw", 4)
        self.call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", shape, raw, "a.qcow2")
        for number in range(3):
            self.call("qemu-io", "-f", "qcow2", "-c", f"write -P {number + 1} {number}M 300k",
                      "a.qcow2")
            self.call("qemu-img", "snapshot", "-c", f"s{number}", "a.qcow2")
            self.call("qemu-img", "convert", "-O", "raw", "a.qcow2", f"s{number}.raw")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 1M", "a.qcow2")

    def test_a_dirty_image_is_repaired_when_it_is_used(self):
        self.disk("create", "--lazy-refcounts", "a.qcow2", "24M")
        self.call("sh", "-c", "qemu-io -f qcow2 -t writeback -c 'write -P 5 0 1M' -c flush "
                  "-c 'sigraise 9' a.qcow2 || true")
        self.assertTrue(self.json("info", "a.qcow2")["layers"][0]["qcow2"]["features"]
                        .count("dirty"))
        self.disk("check", "-r", "all", "-y", "a.qcow2")
        self.call("qemu-img", "check", "-q", "a.qcow2")
        self.assertIn("read 1048576", self.call("qemu-io", "-r", "-f", "qcow2", "-c",
                                                "read -P 5 0 1M", "a.qcow2"))

    def test_an_image_in_use_is_not_checked(self):
        self.make()
        with subprocess.Popen(["qemu-io", "-f", "qcow2", "a.qcow2"], cwd=self.folder,
                              stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as user:
            deadline = time.monotonic() + 20
            while not self.json("info", "a.qcow2")["layers"][0]["in_use"]:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            self.assertIn("in use", self.disk("check", "a.qcow2", code=5))
            user.communicate(b"quit\n", timeout=20)


class Changing(Operator):
    """resize, snapshot and bitmap."""

    def test_disks_grow_and_shrink(self):
        self.make_raw("a.raw", 8)
        self.disk("convert", "-f", "raw", "a.raw", "a.qcow2")
        self.assertIn("--shrink", self.disk("resize", "a.qcow2", "5M", code=4))
        self.assertEqual(self.json("resize", "a.qcow2", "+4M")["virtual_bytes"], 12 * MIB)
        self.disk("resize", "--shrink", "a.qcow2", "5M")
        self.disk("resize", "a.qcow2", "9M")
        self.disk("resize", "-f", "raw", "--shrink", "a.raw", "5M")
        self.disk("resize", "-f", "raw", "a.raw", "9M")
        self.satisfies_qemu("a.qcow2", "a.raw")

    def test_snapshots_inside_an_image(self):
        self.make_raw("a.raw", 8)
        self.make_raw("b.raw", 8, seed=2)
        self.disk("convert", "-f", "raw", "a.raw", "a.qcow2")
        self.disk("snapshot", "-c", "before", "a.qcow2")
        self.assertIn("already", self.disk("snapshot", "-c", "before", "a.qcow2", code=4))
        self.call("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", "b.raw", "a.qcow2")
        listed = self.json("snapshot", "-c", "after", "a.qcow2")["snapshots"]
        self.assertEqual([one["name"] for one in listed], ["before", "after"])
        self.assertIn("before", self.disk("snapshot", "a.qcow2"))
        self.satisfies_qemu("a.qcow2", "b.raw")
        self.disk("snapshot", "-a", "before", "a.qcow2")
        self.satisfies_qemu("a.qcow2", "a.raw")
        self.disk("snapshot", "-d", "before", "a.qcow2")
        self.disk("snapshot", "--apply", "2", "a.qcow2")
        self.satisfies_qemu("a.qcow2", "b.raw")
        self.assertIn("no such", self.disk("snapshot", "-d", "before", "a.qcow2", code=3))
        self.assertIn("one at a time", self.disk("snapshot", "-l", "-d", "x", "a.qcow2", code=2))

    def test_a_name_that_is_the_number_of_another(self):
        """QEMU deletes by the name, but goes back by the number."""
        self.disk("create", "a.qcow2", "8M")
        for number in range(3): # these have the numbers 1, 2 and 3
            self.call("qemu-io", "-f", "qcow2", "-c", f"write -P {number + 1} 0 8M", "a.qcow2")
            self.disk("snapshot", "-c", str(number), "a.qcow2")
        self.call("qemu-img", "snapshot", "-c", "twice", "a.qcow2")
        self.call("qemu-img", "snapshot", "-c", "twice", "a.qcow2")
        for words in (["snapshot", "-d", "1"], ["snapshot", "-a", "2"], ["snapshot", "-d", "twice"],
                      ["map", "--snapshot", "1"]):
            self.assertIn("id=NUMBER", self.disk(*words, "a.qcow2", code=4))
        self.disk("snapshot", "-d", "name=1", "a.qcow2")
        self.disk("snapshot", "-d", "id=5", "a.qcow2")
        self.disk("snapshot", "-d", "twice", "a.qcow2")
        listed = self.json("snapshot", "a.qcow2")["snapshots"]
        self.assertEqual([(one["id"], one["name"]) for one in listed], [("1", "0"), ("3", "2")])
        self.disk("snapshot", "-a", "id=1", "a.qcow2")
        self.call("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 1 0 8M", "a.qcow2")
        self.disk("snapshot", "-c", "id=1", "a.qcow2")
        self.disk("snapshot", "-d", "id=1", "a.qcow2")
        self.assertEqual(len(self.json("snapshot", "a.qcow2")["snapshots"]), 2)

    def test_bitmaps_say_what_was_written(self):
        self.disk("create", "a.qcow2", "8M")
        self.disk("bitmap", "--add", "-g", "4k", "a.qcow2", "mine")
        self.call("qemu-io", "-f", "qcow2", "-c", "write 1M 10k", "a.qcow2")
        self.call("qemu-img", "bitmap", "--add", "a.qcow2", "theirs")
        self.call("qemu-io", "-f", "qcow2", "-c", "write 2M 1k", "a.qcow2")
        self.disk("bitmap", "--disable", "a.qcow2", "theirs")
        self.assertEqual([(one["name"], one["dirty_bytes"], one["enabled"], one["consistent"])
                          for one in self.json("bitmap", "a.qcow2")["bitmaps"]],
                         [("mine", 4 * 4096, True, True), ("theirs", 65536, False, True)])
        self.disk("bitmap", "--merge", "theirs", "a.qcow2", "mine")
        self.assertIn("76.0 KiB dirty", self.disk("bitmap", "a.qcow2"))
        self.assertIn("no bitmaps", self.disk("resize", "--shrink", "a.qcow2", "0", code=4))
        self.call("qemu-img", "check", "-q", "a.qcow2")
        self.disk("bitmap", "--clear", "a.qcow2", "mine")
        self.disk("bitmap", "--remove", "a.qcow2", "theirs")
        self.assertIn("which bitmap", self.disk("bitmap", "--add", "a.qcow2", code=2))
        self.assertIn("no bitmap", self.disk("bitmap", "--remove", "a.qcow2", "theirs", code=3))
        self.call("qemu-img", "check", "-q", "a.qcow2")


    def test_a_snapshot_is_read_as_it_was(self):
        """By its name or number, of another size, made by QEMU or by us, with layers below."""
        raw = self.make_raw("a.raw", 24)
        for shape in ([], ["--extended-l2"], ["--cluster-size", "512"], ["--qcow-version", "2"]):
            with self.subTest(shape=shape):
                self.disk("create", "--force", "-b", raw, "-F", "raw", "b.qcow2", *shape)
                self.call("qemu-io", "-f", "qcow2", "-c", "write -P 5 2M 70k", "b.qcow2")
                self.call("qemu-img", "snapshot", "-c", "theirs", "b.qcow2")
                self.call("qemu-io", "-f", "qcow2", "-c", "write -P 6 2M 1M", "b.qcow2")
                self.call("qemu-img", "convert", "-O", "raw", "b.qcow2", "ours.raw")
                self.disk("snapshot", "--create", "ours", "b.qcow2")
                self.call("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 3M", "b.qcow2")
                if "2" not in shape:
                    self.disk("resize", "b.qcow2", "30M")
                self.call("qemu-img", "convert", "-l", "snapshot.name=theirs", "-O", "raw",
                          "b.qcow2", "theirs.raw")
                for name, number in (("theirs", "1"), ("ours", "2")):
                    for which in (name, number):
                        self.disk("compare", "b.qcow2", "--snapshot", which, f"{name}.raw", "-F",
                                  "raw")
                        self.disk("convert", "--force", "--snapshot", which, "b.qcow2", "c.qcow2")
                        self.satisfies_qemu("c.qcow2", f"{name}.raw")
        self.assertIn("no such snapshot", self.disk("convert", "--snapshot", "x", "b.qcow2", "x.qcow2",
                                                 code=3))
        self.assertIn("raw", self.disk("convert", "--snapshot", "x", "-f", "raw", raw, "x.qcow2",
                                       code=1))
        self.assertIn("only be read", self.disk("serve", "-w", "--snapshot", "ours", "b.qcow2",
                                                "-s", "s", code=4))


class Benching(Operator):
    """bench: that it does what it says; bench/disk_bench.py says how well."""

    def test_it_writes_what_it_is_told(self):
        self.disk("create", "a.qcow2", "16M")
        for engine in ("any", "threads"):
            report = self.json("bench", "-w", "-c", 512, "-d", 16, "-S", "12k", "-o", "4k",
                               "--pattern", 7, "--flush-interval", 64, "-i", engine, "a.qcow2")
            self.assertEqual((report["requests"], report["flushes"]), (512, 8))
        self.call("qemu-img", "check", "-q", "a.qcow2")
        with open(self.folder / "model.raw", "wb") as raw:
            raw.truncate(16 * MIB)
            for number in range(512):
                raw.seek(4096 + number * 12288)
                raw.write(b"\7" * 4096)
        self.satisfies_qemu("a.qcow2", "model.raw")
        for order in ("step", "random"):
            self.assertGreater(self.json("bench", "-c", 1000, "--order", order, "-t", "none",
                                         "a.qcow2")["requests_per_second"], 0)

    def test_what_can_not_be_measured(self):
        self.disk("create", "a.qcow2", "1M")
        self.disk("bench", "a.qcow2", "-i", "x", code=2)
        self.disk("bench", "a.qcow2", "--flush-interval", "3", code=2)
        self.assertIn("ends", self.disk("bench", "a.qcow2", "-o", "1M", code=1))


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
                self.disk("create", *words, code=2)
        self.assert_nothing_new()
        self.disk("create", "a.qcow2", "1M")
        for words in (["check", "-r", "most", "a.qcow2"], ["resize", "a.qcow2", "much"],
                      ["bitmap", "--add", "-g", "3k", "a.qcow2", "map"]):
            with self.subTest(words=words):
                self.disk(*words, code=2)

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

    def test_output_that_does_not_arrive(self):
        """A list of ranges to copy that is cut off must not look like a short one."""
        self.make_raw("a.raw", 24)
        self.disk("convert", "-f", "raw", "a.raw", "a.qcow2")
        for words in (["map"], ["map", "--json"], ["info"], ["info", "--json"], ["check"]):
            told = self.call("sh", "-c", f"{BUILD}/bin/vm-disk {' '.join(words)} a.qcow2 >/dev/full",
                             code=1)
            self.assertIn("output", told)

    def test_names_that_move_the_cursor(self):
        """Whoever made an image may have given its parts any name."""
        name = "a\33[2Jb\nc"
        self.disk("create", "a.qcow2", "1M")
        self.disk("snapshot", "-c", name, "a.qcow2")
        self.disk("bitmap", "--add", "a.qcow2", name)
        for words in (["snapshot"], ["bitmap"]):
            self.assertIn("a?[2Jb?c\n", self.disk(*words, "a.qcow2"))
        self.assertEqual(self.json("snapshot", "a.qcow2")["snapshots"][0]["name"], name)
        self.assertIn("a?[2Jb?c", self.disk("snapshot", "-d", name + "x", "a.qcow2", code=3))

    def test_a_copy_is_not_done_before_it_was_made(self):
        self.disk("changes", "--begin", "--done", "a.changes", code=2)

    def test_standard_files_that_are_closed(self):
        """What is printed must not land in the image, which would get a free number."""
        self.disk("create", "a.qcow2", "64M")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 32M", "a.qcow2")
        with open(self.folder / "a.qcow2", "r+b") as image:
            head = image.read(48)
            image.seek(int.from_bytes(head[40:48], "big") + 1)
            table = int.from_bytes(image.read(7), "big")
            for number in range(200): # no longer marked as its owner's alone
                image.seek(table + 8 * number)
                image.write(b"\0")
        repair = f"{BUILD}/bin/vm-disk check -r all --yes"
        shutil.copy(self.folder / "a.qcow2", self.folder / "b.qcow2")
        self.call("sh", "-c", f"{repair} a.qcow2")
        self.call("sh", "-c", f"{repair} b.qcow2 >&-")
        self.call("cmp", "a.qcow2", "b.qcow2")

    def test_ctrl_c_removes_what_was_begun(self):
        (self.folder / "a.raw").write_bytes(os.urandom(MIB) * 256)
        with subprocess.Popen([BUILD / "bin" / "vm-disk", "convert", "-f", "raw", "a.raw",
                               "a.qcow2", "-c", "zlib", "--threads", "1"], cwd=self.folder,
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
    main()
