#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images that vm-disk serves, and clients that know nothing of us."""

import json
import shutil
import signal
import subprocess
import time
import unittest

from ferrydisk.operator import BUILD, MIB, Operator, main


@unittest.skipUnless(shutil.which("nbdkit") and shutil.which("nbdcopy") and
                     (BUILD / "lib/ferry/nbdkit-ferry-plugin.so").exists(),
                     "needs nbdkit, nbdcopy and the plugin (apt: nbdkit nbdkit-plugin-dev libnbd-bin)")
class Serving(Operator):
    """serve: clients that know nothing of us."""

    def serve(self, *words):
        """Starts a server; gives its URI and process."""
        ready = self.folder / "ready.pid"
        ready.unlink(missing_ok=True)
        (self.folder / "nbd.socket").unlink(missing_ok=True)
        server = subprocess.Popen([BUILD / "bin" / "vm-disk", "serve", "--socket", "nbd.socket",
                                   "--pid-file", "ready.pid", *words], cwd=self.folder)
        self.addCleanup(server.wait, 20)
        self.addCleanup(server.kill)
        deadline = time.monotonic() + 30
        while not ready.exists():
            self.assertIsNone(server.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        return f"nbd+unix:///?socket={self.folder}/nbd.socket", server

    def make_chain(self):
        """Two overlays on a raw image, and what a guest sees of them."""
        raw = self.make_raw("a.raw", 24)
        self.disk("create", "-b", raw, "-F", "raw", "one.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 70k", "one.qcow2")
        self.disk("create", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2", "--extended-l2",
                  "--cluster-size", "128k")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -z 5M 1M", "-c", "write -P 3 9M 4k",
                  "two.qcow2")
        self.call("qemu-img", "convert", "-f", "qcow2", "-O", "raw", "two.qcow2", "seen.raw")

    def test_clients_read_a_chain(self):
        self.make_chain()
        uri, server = self.serve("two.qcow2")
        self.call("nbdcopy", uri, "copy.raw")
        self.call("cmp", "copy.raw", "seen.raw")
        self.call("qemu-img", "compare", "-f", "raw", "-F", "qcow2", uri, "two.qcow2")
        extents = json.loads(self.call("nbdinfo", "--json", "--map", uri))
        holes = sum(extent["length"] for extent in extents if extent["type"] == 3)
        self.assertGreater(holes, 12 * MIB)
        self.assertEqual(sum(extent["length"] for extent in extents), 24 * MIB)
        self.call("qemu-io", "-f", "raw", "-r", "-c", "write -P 1 0 4k", uri, code=1)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0)

    def test_clients_write_an_overlay(self):
        self.make_chain()
        words = ("-c", "write -P 9 3M 300k", "-c", "write -z 8M 1M", "-c", "discard 10M 1M",
                 "-c", "write -z 10M 1M", "-c", "flush")
        self.call("qemu-io", "-f", "raw", *words, "seen.raw")
        uri, server = self.serve("two.qcow2", "--writable")
        self.call("qemu-io", "-f", "raw", *words, uri)
        self.call("qemu-img", "compare", "-f", "raw", "-F", "raw", uri, "seen.raw")
        told = self.call("qemu-img", "info", "-f", "qcow2", "two.qcow2", code=1)
        self.assertIn("lock", told)
        self.assertIn("in use", self.disk("convert", "two.qcow2", "x.qcow2", code=5))
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0)
        self.call("qemu-img", "check", "-q", "-f", "qcow2", "two.qcow2")
        self.call("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "two.qcow2", "seen.raw")

    def test_a_reader_keeps_writers_out(self):
        self.make_chain()
        self.serve("two.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write 0 4k", "two.qcow2", code=1)
        self.call("qemu-img", "info", "-f", "qcow2", "two.qcow2")

    def test_clients_read_a_snapshot_in_an_image(self):
        self.make_chain()
        self.disk("snapshot", "--create", "then", "two.qcow2")
        self.call("qemu-io", "-f", "qcow2", "-c", "write -P 8 0 20M", "two.qcow2")
        uri, _ = self.serve("two.qcow2", "--snapshot", "then")
        self.call("nbdcopy", uri, "copy.raw")
        self.call("cmp", "copy.raw", "seen.raw")
        self.call("qemu-io", "-f", "raw", "-r", "-c", "write -P 1 0 4k", uri, code=1)

    def test_a_socket_is_used_again(self):
        """The one that a server left, but not one that somebody uses, and nothing else."""
        self.make_chain()
        uri, server = self.serve("two.qcow2")
        told = self.disk("serve", "two.qcow2", "-s", "nbd.socket", code=4)
        self.assertIn("somebody serves", told)
        self.call("nbdinfo", uri)
        server.kill()
        server.wait(20)
        again = subprocess.Popen([BUILD / "bin" / "vm-disk", "serve", "--socket", "nbd.socket",
                                  "two.qcow2"], cwd=self.folder)
        self.addCleanup(again.wait, 20)
        self.addCleanup(again.kill)
        deadline = time.monotonic() + 30
        while subprocess.run(["nbdinfo", uri], capture_output=True, check=False).returncode != 0:
            self.assertIsNone(again.poll())
            self.assertLess(time.monotonic(), deadline)
        self.assertIn("no socket", self.disk("serve", "two.qcow2", "-s", "one.qcow2", code=4))
        self.disk("info", "one.qcow2")

    def test_what_can_not_be_served(self):
        self.disk("serve", "x.qcow2", "--socket", "s", code=3)
        self.disk("serve", "x.qcow2", code=2)


if __name__ == "__main__":
    main()
