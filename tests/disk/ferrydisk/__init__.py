# SPDX-License-Identifier: Apache-2.0
"""Disk images, exercised by QEMU and by us, and judged by three readers."""
