# SPDX-License-Identifier: Apache-2.0
"""The migration network dies in the middle of a move: the guest must run on where it was.

The link is slowed first, so that the cut comes while memory is on its way on any machine. After
the failure nothing is left on the target, and once the link is back the same move succeeds.
"""

from ferrylab.machine import Machine
from ferrylab.trouble import Failure

TITLE = "link cut in the middle of a move"
MACHINE = Machine()
CARD = "eth2"
SLOW = "rate 8mbit burst 32k latency 100ms"
BYTES_BEFORE_CUT = 2 << 20


def run(trial):
    """Cuts, checks that all is as before, mends, moves."""
    source, target = trial.site.a, trial.site.b
    trial.boot()
    trial.start_watch()
    source.run(f"modprobe sch_tbf && /sbin/tc qdisc add dev {CARD} root tbf {SLOW}")
    trial.story.step("Start a move over a slow link, and cut the link while memory is on its way")
    start = sent_bytes(source)
    trial.vmm.start_migration(trial.machine, source, target)
    source.wait_for("memory is on its way", lambda: sent_bytes(source) - start > BYTES_BEFORE_CUT,
                    120)
    source.cut(CARD)
    try:
        trial.vmm.finish_migration(source)
    except Failure as failure:
        trial.story.detail("the move failed, as it must: " + str(failure).splitlines()[-1])
    else:
        raise Failure("a move whose network was cut says that it succeeded")
    finally:
        source.mend(CARD)
        source.run(f"/sbin/tc qdisc del dev {CARD} root")
    if trial.vmm.state(source, trial.machine) != "running":
        raise Failure("the guest does not run at the source after the failed move")
    trial.verify()
    trial.report_outage("during the failed move")
    target.wait_for("nothing is left on the target",
                    lambda: trial.vmm.state(target, trial.machine) == "gone", 60)
    trial.migrate(target)


def sent_bytes(host):
    """Bytes that left through the migration card."""
    return int(host.run(f"cat /sys/class/net/{CARD}/statistics/tx_bytes"))
