# SPDX-License-Identifier: Apache-2.0
"""Moves that something ends in the middle: the guest must run on where it was.

The link is slowed first, so that each fault comes while memory is on its way. After each failure
nothing is left on the target. A link that only loses, doubles, corrupts and reorders packets must
not end a move, and the same machine moves over it at last.
"""

from ferrylab.machine import Machine
from ferrylab.migration_link import DROPS_ALL, NOISY, SLOW, MigrationLink
from ferrylab.trouble import Failure

TITLE = "moves cut, stalled, cancelled and over a bad link"
MACHINE = Machine()
BYTES_BEFORE_FAULT = 2 << 20
END_SECONDS_MAX = 60


def fail(trial, link, what, fault):
    """Starts a move and disturbs it; all must be as before."""
    source, target = trial.site.a, trial.site.b
    trial.story.step(f"Start a move over a slow link; while memory is on its way, {what}")
    link.shape(SLOW)
    trial.vmm.start_migration(trial.machine, source, target)
    try:
        link.wait_for_bytes(BYTES_BEFORE_FAULT)
        fault()
        trial.vmm.finish_migration(source)
    except Failure as failure:
        if source.is_running("vm-migrate"):
            raise
        trial.story.detail("the move failed, as it must: " + str(failure).splitlines()[-1])
    else:
        raise Failure("a move that was disturbed says that it succeeded")
    finally:
        link.mend()
    if trial.vmm.state(source, trial.machine) != "running":
        raise Failure("the guest does not run at the source after the failed move")
    trial.verify()
    trial.report_outage(f"when one did {what}")
    target.wait_for("nothing is left on the target",
                    lambda: trial.vmm.state(target, trial.machine) == "gone", END_SECONDS_MAX)


def run(trial):
    """Cuts, stalls, cancels; then moves over a link that is merely bad."""
    trial.boot()
    trial.start_watch()
    link = MigrationLink(trial.site.a)
    fail(trial, link, "pull the cable", link.cut)
    fail(trial, link, "drop every packet", lambda: link.shape(DROPS_ALL))
    fail(trial, link, "cancel", lambda: trial.vmm.cancel_migration(trial.site.a, trial.machine))
    trial.story.step("Make the link lose, double, corrupt and reorder packets")
    link.shape(NOISY)
    trial.migrate(trial.site.b)
    link.mend()
