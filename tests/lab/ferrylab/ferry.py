# SPDX-License-Identifier: Apache-2.0
"""Ferry's programs on the hosts of a site, as a user types them."""

import json
import shlex

from ferrylab.trouble import Failure

STORE = '"${FERRY_STATE_DIR:-/var/lib/ferry}/snapshots"'
CERTIFICATES = '"${FERRY_CONFIG_DIR:-/etc/ferry}"'
RECEIVE_PORT = 7420
MIGRATION_SECONDS_MAX = 300


class Ferry:
    """vm-run, vm-save, vm-restore, vm-migrate and their helpers."""

    name = "ferry"
    store = STORE

    def __init__(self, site):
        self.site = site

    def prepare(self):
        """Makes certificates for both hosts and lets both receive machines."""
        a, b = self.site.a, self.site.b
        a.run(f"vm-certs init && vm-certs issue host-a --out {CERTIFICATES} && "
              "vm-certs issue host-b --out /run/lab/for-host-b")
        archive = a.run("cd /run/lab/for-host-b && tar c . | base64")
        b.run(f"mkdir -p {CERTIFICATES} && base64 -d | tar x -C {CERTIFICATES}",
              stdin=archive.encode())
        for host in (a, b):
            host.start("vm-receive", f"vm-receive --listen 0.0.0.0:{RECEIVE_PORT}")
            host.wait_for("vm-receive listens", lambda host=host: f":{RECEIVE_PORT}" in
                          host.run("netstat -ltn"), 60)

    def boot(self, host, machine):
        """Creates the disk and boots a machine."""
        if machine.disk_check:
            host.run(f"qemu-img create -q -f qcow2 {machine.disk} {machine.disk_mib}M")
        disks = [("vda", machine.disk, "qcow2")] if machine.disk_check else []
        if machine.has_data_disk:
            disks.append(("data", machine.data_disk, "qcow2"))
        self.launch(host, machine, disks)

    def disks(self, host, machine):
        """A running machine's disks as they are: id, path and format. Saving changes the path."""
        status = json.loads(host.run(f"vm-ctl status {machine.name} --json"))
        return [(disk["id"], disk["path"], disk["format"]) for disk in status["config"]["disks"]]

    def launch(self, host, machine, disks):
        """Boots a machine on disks that are there."""
        words = ["vm-run", "--name", machine.name, "--memory", str(machine.memory_mib), "--cpus",
                 str(machine.vcpus), "--kernel", machine.kernel, "--initrd", machine.initramfs,
                 "--append", machine.command_line(), "--console", f"file={machine.console_log()}"]
        for name, path, image_format in disks:
            words += ["--disk", f"id={name},path={path},format={image_format}"]
        if machine.has_network:
            words += ["--net", f"id=net0,tap=tap0,mac={machine.mac}"]
        host.start(machine.name, " ".join(shlex.quote(word) for word in words))

    def state(self, host, machine):
        """What the machine says it is doing; 'gone' when it is not there."""
        answer = host.try_run(f"vm-ctl status {machine.name} --json")
        return json.loads(answer.out)["state"] if answer.code == 0 else "gone"

    def is_alive(self, host, machine):
        """Whether the machine is there at all."""
        return host.is_running(machine.name) or self.state(host, machine) != "gone"

    def kill(self, host, machine):
        """Kills the machine's process outright, as a crash of the host would."""
        status = json.loads(host.run(f"vm-ctl status {machine.name} --json"))
        host.run(f"kill -9 {status['pid']}")
        host.wait_for("the machine is gone", lambda: not self.is_alive(host, machine), 30)

    def press_power_button(self, host, machine):
        """Tells the guest by ACPI."""
        host.run(f"vm-ctl power-off {machine.name}")

    def grow_disk(self, host, machine, mib):
        """Makes the checks' disk so large while the guest runs."""
        host.run(f"vm-ctl resize-disk {machine.name} vda {mib}M")

    def quit(self, host, machine):
        """Ends a machine, if it is there."""
        host.try_run(f"vm-ctl quit {machine.name}")

    def save(self, host, machine):
        """Saves a running machine; returns the snapshot's name, and what vm-save measured."""
        report = json.loads(host.run(f"vm-save {machine.name} --store {STORE} --json", timeout=300))
        return report["snapshot"], {
            "pause, as vm-save tells it": (report["pause_us"] / 1000, "ms"),
            "snapshot's size": (report["bytes"] / 2**20, "MiB")}

    def verify(self, host, snapshot):
        """Reads a whole snapshot and compares its checksums."""
        host.run(f"vm-snapshot verify {snapshot} --store {STORE}", timeout=300)

    def restore(self, host, machine, snapshot):
        """Brings a snapshot back under its old name; returns what vm-restore measured."""
        report = json.loads(host.run(
            f"vm-restore {snapshot} --name {machine.name} --store {STORE} --json", timeout=300))
        return {"first instruction after, as vm-restore tells it":
                (report["first_run_us"] / 1000, "ms")}

    def start_migration(self, machine, source, target):
        """Starts moving a machine and returns at once."""
        source.start("vm-migrate",
                     f"vm-migrate {machine.name} {target.name} --json "
                     f"--downtime {self.site.downtime_ms}")

    def cancel_migration(self, source, machine):
        """Stops a move that is under way."""
        source.run(f"vm-migrate --cancel {machine.name}")

    def finish_migration(self, source):
        """Waits for the end of a move; returns its figures, or raises with what it said."""
        source.wait_for("vm-migrate ends", lambda: not source.is_running("vm-migrate"),
                        MIGRATION_SECONDS_MAX)
        log = source.log("vm-migrate")
        events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        moved = [event for event in events if event["event"] == "moved"]
        if not moved:
            raise Failure(f"vm-migrate on {source.name} failed:\n{log[-2000:]}")
        report = moved[-1]
        return {"rounds": (report["rounds"], ""),
                "sent": (report["page_bytes"] / 2**20, "MiB"),
                "blackout predicted by vm-migrate": (report["blackout_predicted_us"] / 1000, "ms"),
                "blackout told by vm-migrate": (report["blackout_us"] / 1000, "ms")}
