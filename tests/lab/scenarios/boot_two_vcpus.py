# SPDX-License-Identifier: Apache-2.0
"""A stock Debian kernel brings up its second vCPU, which needs the MADT and start-up interrupts."""

from ferrylab.machine import Machine

TITLE = "boot with 2 vCPUs"
MACHINE = Machine(vcpus=2)


def run(trial):
    """Boots, checks, presses the power button."""
    trial.boot()
    trial.verify()
    trial.press_power_button()
