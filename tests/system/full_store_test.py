#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A store that runs full: the save fails with the reason, all else goes on."""

import os
import shutil

from ferrytest.case import Case, main, needs
from ferrytest.host import BUILD


def in_small_store(store, bytes_max, command):
    """A command line that sees `store` as an empty file system of so many bytes."""
    script = (f"mount -t tmpfs -o size={bytes_max},mode=0700 none {store} || exit 9; "
              f"{command}; code=$?; find {store} -type f; exit $code")
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    return [*unshare, "sh", "-c", script]


@needs("vm-save", "vm-restore", "vm-snapshot", "vm-ctl")
class FullStore(Case):
    """The store is a tmpfs too small for the second snapshot."""

    def test_a_full_store_fails_the_save_and_nothing_else(self):
        if shutil.which("unshare") is None:
            self.skipTest("unshare is not installed")
        host = self.host()
        guest = self.boot(host, memory=64)
        store = self.folder / "store"
        store.mkdir()
        probe = host.start(*in_small_store(store, 1 << 20, "true"))
        if probe.wait() != 0:
            self.skipTest(f"no private file system here: {probe.output().strip()}")

        vm_save = BUILD / "bin" / "vm-save"
        save = host.start(*in_small_store(store, 2 << 20, f"{vm_save} m --store {store}"))
        output = save.must_fail()
        self.assertIn("No space left", output)
        self.assertEqual(host.state("m"), "running")
        guest.check(2)

        first = host.save("m", "--store", store)
        host.run("vm-snapshot", "verify", f"m/{first['id']}", "--store", store)
        guest.check(1)
        host.run("vm-ctl", "quit", "m", "--wait", "10")
        host.run("vm-restore", "m", "--store", store)
        self.follow(host, "m", guest.jobs).check(2)


if __name__ == "__main__":
    main()
