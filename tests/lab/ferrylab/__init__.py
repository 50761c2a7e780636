# SPDX-License-Identifier: Apache-2.0
"""Two virtual hosts with KVM and a network between them, to run Ferry on; see README.md here."""
