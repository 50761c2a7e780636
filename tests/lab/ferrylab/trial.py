# SPDX-License-Identifier: Apache-2.0
"""What scenarios are written with: a machine, who runs it, who watches it, what came of it."""

import time

from ferrylab import storage
from ferrylab.guest import Guest
from ferrylab.trouble import Failure
from ferrylab.watch import Watch

ANSWER_SECONDS_MAX = 120
POWER_OFF_SECONDS_MAX = 60


class Trial:
    """One machine on one site through one scenario."""

    def __init__(self, site, vmm, story, machine):
        self.site = site
        self.vmm = vmm
        self.story = story
        self.machine = machine
        self.host = site.a
        self.guest = Guest(site.witness)
        self.watch = Watch(site.witness)

    def boot(self):
        """Boots the machine and waits for its guest's word."""
        machine = self.machine
        self.story.step(f"Boot a stock Debian 12 kernel with {machine.vcpus} vCPU and "
                        f"{machine.memory_mib} MiB on {self.host.name}")
        self.vmm.boot(self.host, machine)
        self.check_booted()

    def boot_again(self, disks):
        """Boots the same machine anew on disks that an earlier life of it left behind."""
        self.story.step(f"Boot the machine anew on the disks as they are, on {self.host.name}")
        self.host.run(f"rm -f {self.machine.console_log()}")
        self.vmm.launch(self.host, self.machine, disks)
        self.check_booted()

    def check_booted(self):
        """Waits for the guest's word; it must see all that the machine has."""
        machine = self.machine
        facts = self.guest.wait_until_up(self.host, machine, self.is_alive)
        if int(facts["vcpus"]) != machine.vcpus:
            raise Failure(f"the guest has {facts['vcpus']} vCPUs instead of {machine.vcpus}")
        missing = machine.drivers() - set(facts["devices"].split(","))
        if missing:
            raise Failure(f"the guest does not see its devices: {', '.join(sorted(missing))}")
        self.story.detail(f"kernel {facts['kernel']}, clock {facts['clock']}, "
                          f"devices {facts['devices'].replace(',', ' ')}")
        self.story.figure("guest up after", facts["wall_seconds"], "s")

    def is_alive(self):
        """Whether the machine is still there; also tells a dead lab from a dead machine."""
        self.site.check_alive()
        return self.vmm.is_alive(self.host, self.machine)

    def start_watch(self):
        """Lets the witness talk to the guest all the time."""
        self.story.step("The witness sends UDP datagrams to the guest and holds a TCP connection "
                        "that counts")
        self.watch.start()
        self.verify()
        self.report_outage("undisturbed")

    def verify(self):
        """Waits until the guest has checked everything anew."""
        checks = self.guest.verify()
        parts = []
        if "memcheck" in checks:
            parts.append(f"memory pattern whole ({checks['memcheck']['rounds']:.0f} rounds)")
        if "diskcheck" in checks:
            parts.append(f"{checks['diskcheck']['writes']:.0f} flushed disk writes in place")
        parts.append("clock never ran backwards")
        self.story.detail("the guest's own checks: " + ", ".join(parts))

    def report_outage(self, when):
        """What the witness noticed since the last report."""
        figures = self.watch.figures()
        self.story.figure(f"longest silence, UDP, {when}", figures["udp_gap_ms"], "ms")
        self.story.figure(f"longest silence, TCP, {when}", figures["tcp_gap_ms"], "ms")
        self.watch.forget()

    def save(self):
        """Saves the running machine; returns the snapshot's id."""
        self.story.step(f"Save the running machine on {self.host.name}")
        started = time.monotonic()
        snapshot, told = self.vmm.save(self.host, self.machine)
        self.story.detail(f"snapshot {snapshot}; the guest runs on")
        self.story.figure("save took", time.monotonic() - started, "s")
        self.tell(told)
        self.report_outage("saving")
        self.vmm.verify(self.host, snapshot)
        return snapshot

    def tell(self, figures):
        """Passes on what a program says about itself; the witness measures beside it."""
        for what, (value, unit) in figures.items():
            self.story.figure(what, value, unit)

    def kill(self):
        """Kills the machine's process outright."""
        self.story.step("Kill the machine's process with SIGKILL, as if the host had crashed")
        self.watch.stop()
        self.vmm.kill(self.host, self.machine)
        self.story.detail("the guest is gone")

    def restore(self, snapshot):
        """Brings a snapshot back and waits until the witness hears from the guest."""
        self.story.step(f"Restore snapshot {snapshot}: the guest goes on where it was saved")
        rounds = self.rounds_at_save
        started = time.monotonic()
        told = self.vmm.restore(self.host, self.machine, snapshot)
        self.story.figure("restore command took", time.monotonic() - started, "s")
        self.tell(told)
        self.site.witness.wait_for("the restored guest answers",
                                   lambda: self.guest.try_run("true", 5).code == 0,
                                   ANSWER_SECONDS_MAX)
        self.story.figure("guest answers after", time.monotonic() - started, "s")
        now = self.guest.checks().get("memcheck", {}).get("rounds", 0)
        if now < rounds:
            raise Failure(f"the guest started anew: memory round {now} after {rounds} at the save")
        self.watch.start()
        self.verify()
        self.watch.forget()

    @property
    def rounds_at_save(self):
        """The round that the memory check had surely begun when the machine was saved."""
        return 2 if self.machine.memory_check else 0

    def migrate(self, target):
        """Moves the machine while it works, then verifies it there."""
        source = self.host
        self.story.step(f"Live-migrate the machine from {source.name} to {target.name} while it "
                        "writes memory and disk")
        self.watch.forget()
        started = time.monotonic()
        self.vmm.start_migration(self.machine, source, target)
        told = self.vmm.finish_migration(source)
        self.story.figure("migration took", time.monotonic() - started, "s")
        self.tell(told)
        self.host = target
        self.check_one_owner(source, target)
        self.verify()
        self.report_outage(f"moving to {target.name}")

    def check_one_owner(self, source, target):
        """The machine runs on the target and nowhere else."""
        if self.vmm.state(target, self.machine) != "running":
            raise Failure(f"the machine does not run on {target.name} after its move")
        if self.vmm.state(source, self.machine) == "running":
            raise Failure(f"the machine still runs on {source.name} after its move")

    def grow_disk(self):
        """The disk becomes larger under the guest, whose kernel must notice."""
        mib = 2 * self.machine.disk_mib
        self.story.step(f"Make the disk {mib} MiB large while the guest uses it")
        self.vmm.grow_disk(self.host, self.machine, mib)
        self.host.wait_for("the guest sees the new size", lambda: int(
            self.guest.run("cat /sys/block/vda/size")) == mib << 11, ANSWER_SECONDS_MAX)
        last = (mib << 11) - 8
        self.guest.run(f"echo grown | dd of=/dev/vda bs=512 seek={last} conv=fsync 2>/dev/null && "
                       f"echo 3 >/proc/sys/vm/drop_caches && "
                       f"dd if=/dev/vda bs=512 skip={last} count=1 2>/dev/null | grep -q grown")
        self.story.detail("the guest writes and reads what was added")

    def power_off(self):
        """The guest powers itself off; the machine's process must end by itself."""
        self.story.step("The guest powers itself off")
        self.guest.try_run("(poweroff -f &)")
        self.host.wait_for("the machine ends", lambda: not self.is_alive(), POWER_OFF_SECONDS_MAX)

    def press_power_button(self):
        """The guest is asked to power off, and does."""
        self.story.step("Press the power button; the guest powers off")
        self.vmm.press_power_button(self.host, self.machine)
        self.host.wait_for("the machine ends", lambda: not self.is_alive(), POWER_OFF_SECONDS_MAX)

    def clock_difference(self):
        """Guest's wall clock less this machine's, in whole seconds as the guest tells them."""
        return int(self.guest.run("date +%s")) - time.time()

    def finish(self):
        """Ends the machine and leaves the site ready for the next scenario."""
        self.watch.stop()
        for host in (self.site.a, self.site.b):
            self.vmm.quit(host, self.machine)
            host.run(f"rm -rf {self.machine.console_log()} /run/lab/{self.machine.name}.pid "
                     f"{self.vmm.store}")
        self.site.a.run(f"rm -rf {storage.PATH}/*")
