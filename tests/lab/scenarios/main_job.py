# SPDX-License-Identifier: Apache-2.0
"""The main job once through: boot, save, kill, restore, move to the other host.

This is what `tools/demo` shows and what every test run includes.
"""

from ferrylab.machine import Machine

TITLE = "boot, save, kill, restore, migrate"
MACHINE = Machine()
IS_SHORT = True


def run(trial):
    """Every verb once, with the guest's checks after each."""
    trial.boot()
    trial.start_watch()
    snapshot = trial.save()
    trial.kill()
    trial.restore(snapshot)
    trial.migrate(trial.site.b)
