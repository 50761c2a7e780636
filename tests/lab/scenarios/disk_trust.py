# SPDX-License-Identifier: Apache-2.0
"""Nothing that a database was told is durable may be lost, whatever happens to the machine.

The guest's data disk is a compressed image with an overlay. SQLite commits on it while the
machine's process is killed, and while a snapshot is taken every second; a file system check, the
checksums of the image's own files and SQLite's integrity check judge what is found afterwards.
"""

import time

from ferrylab import data_disk
from ferrylab.machine import Machine
from ferrylab.trouble import Failure

TITLE = "SQLite on a compressed image: killed, and saved every second"
MACHINE = Machine(has_data_disk=True, disk_check="", memory_check="4,20",
                  initramfs="/srv/boot/initramfs-data")
KILLS = 2
SAVES = 8
SAVE_PERIOD_SECONDS = 1


def rows_committed(trial):
    """How many rows the guest was promised to keep."""
    return int(trial.guest.checks()["sqlite"]["writes"])


def kill_and_boot(trial):
    """Kills the machine while it commits; everything committed must be there at the next boot."""
    rows = rows_committed(trial)
    disks = trial.vmm.disks(trial.host, trial.machine)
    trial.kill()
    data_disk.keep_as_it_is(trial.host)
    trial.boot_again(disks)
    found = data_disk.found_at_boot(trial.host, trial.machine)
    data_disk.judge(found, rows)
    trial.story.detail(f"file system and files whole, {found['rows']} rows, {rows} were promised")
    trial.guest.verify()


def save_often(trial):
    """Saves every second, or as fast as the host can; returns the snapshots and their rows."""
    trial.story.step(f"Save the machine {SAVES} times, every second if the host is fast enough")
    saved = []
    due = time.monotonic()
    for _ in range(SAVES):
        rows = rows_committed(trial)
        snapshot, told = trial.vmm.save(trial.host, trial.machine)
        saved.append((snapshot, rows))
        due += SAVE_PERIOD_SECONDS
        time.sleep(max(0, due - time.monotonic()))
    trial.tell(told)
    trial.guest.verify()
    return saved


def run(trial):
    """Kills, saves, kills, restores."""
    data_disk.provide(trial.site, trial.machine)
    trial.boot()
    data_disk.judge(data_disk.found_at_boot(trial.host, trial.machine), 0)
    trial.guest.verify()
    for _ in range(KILLS):
        kill_and_boot(trial)
    saved = save_often(trial)
    kill_and_boot(trial)
    for snapshot, rows in (saved[-1], saved[len(saved) // 2]):
        trial.kill()
        trial.restore(snapshot)
        if rows_committed(trial) < rows:
            raise Failure(f"snapshot {snapshot} lacks rows: {rows} were there before it")
