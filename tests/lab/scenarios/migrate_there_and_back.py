# SPDX-License-Identifier: Apache-2.0
"""A guest that writes memory and disk and serves a TCP connection moves to host-b and back."""

from ferrylab.machine import Machine

TITLE = "migrate A to B to A under load"
MACHINE = Machine()


def run(trial):
    """Two moves; the same TCP connection lives through both."""
    trial.boot()
    trial.start_watch()
    trial.migrate(trial.site.b)
    trial.migrate(trial.site.a)
