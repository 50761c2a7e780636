#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Raw images whose size is no multiple of a sector: nothing of them may be lost."""

import os

from ferrydisk.operator import Operator, main


class OddSizes(Operator):
    """The last sector is filled up with zeros, as QEMU does it."""

    SIZES = (1, 511, 1000, 65536 + 700, (3 << 20) + 1)

    def make_odd(self, size):
        """Gives its content up to the end of the last sector."""
        data = os.urandom(size)
        (self.folder / "odd.raw").write_bytes(data)
        return data + bytes(-size % 512)

    def test_conversion_keeps_the_tail(self):
        for size in self.SIZES:
            with self.subTest(size=size):
                whole = self.make_odd(size)
                self.disk("convert", "--force", "-f", "raw", "odd.raw", "a.qcow2")
                self.satisfies_qemu("a.qcow2", "odd.raw")
                self.disk("convert", "--force", "-O", "raw", "a.qcow2", "back.raw")
                self.assertEqual((self.folder / "back.raw").read_bytes(), whole)
                self.disk("compare", "--strict", "-F", "raw", "a.qcow2", "odd.raw")
                layer = self.json("info", "-f", "raw", "odd.raw")["layers"][0]
                self.assertEqual((layer["virtual_bytes"], layer["file_bytes"]), (len(whole), size))

    def test_a_backing_image_is_seen_with_its_tail(self):
        for size in self.SIZES:
            with self.subTest(size=size):
                whole = self.make_odd(size)
                for maker in ("qemu", "ours"):
                    (self.folder / "over.qcow2").unlink(missing_ok=True)
                    if maker == "qemu":
                        self.call("qemu-img", "create", "-q", "-f", "qcow2", "-b", "odd.raw", "-F",
                                  "raw", "over.qcow2")
                    else:
                        self.disk("create", "-b", "odd.raw", "-F", "raw", "over.qcow2")
                    self.disk("convert", "--force", "-O", "raw", "over.qcow2", "ours.raw")
                    self.assertEqual((self.folder / "ours.raw").read_bytes(), whole)

    def test_a_difference_in_the_tail_is_found(self):
        whole = self.make_odd(1000)
        (self.folder / "other.raw").write_bytes(whole[:998] + b"x")
        self.assertIn("offset 998", self.disk("compare", "-f", "raw", "-F", "raw", "odd.raw",
                                              "other.raw", code=1))


if __name__ == "__main__":
    main()
