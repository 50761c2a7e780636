# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: hosts, programs, machines, links, and how a test begins and ends."""
