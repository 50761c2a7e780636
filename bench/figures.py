# SPDX-License-Identifier: Apache-2.0
"""How benches print what they found: one comparable line for each figure."""
import os
import statistics


def machine_line():
    return f"machine: {os.cpu_count()} CPUs, {os.uname().release}, load {os.getloadavg()[0]:.1f}"


def line(name, unit, values, note=""):
    """Prints one line and returns the median, None of nothing."""
    if not values:
        print(f"{name:38} {unit:5} nothing measured  {note}", flush=True)
        return None
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{name:38} {unit:5} p50 {statistics.median(ordered):9.2f}  p99 {p99:9.2f}  "
          f"max {ordered[-1]:9.2f}  n {len(ordered):3}  {note}", flush=True)
    return statistics.median(ordered)
