# SPDX-License-Identifier: Apache-2.0
"""A stock Debian kernel boots on one vCPU with all devices, works, sees its disk grow, and powers
off by ACPI."""

from ferrylab.machine import Machine

TITLE = "boot with 1 vCPU"
MACHINE = Machine(vcpus=1)


def run(trial):
    """Boots, checks, powers off from inside."""
    trial.boot()
    trial.verify()
    trial.grow_disk()
    trial.verify()
    trial.power_off()
