# SPDX-License-Identifier: Apache-2.0
"""What the lab tries, one scenario a file.

Each has TITLE, MACHINE and `run(trial)`; what raises no exception has passed.
"""
