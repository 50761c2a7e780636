# SPDX-License-Identifier: Apache-2.0
"""The ways in which a scenario can end badly; whose fault it is decides what is reported."""


class Failure(Exception):
    """Ferry, or the guest it ran, did something wrong."""


class CommandFailed(Failure):
    """A command on a host or in a guest ended with a status other than zero."""

    def __init__(self, where, command, output):
        self.output = output
        super().__init__(f"{where}: '{command}' ended with status {output.code}\n{output.text()}")


class LabTrouble(Exception):
    """The lab itself did not work: a missing package, an image that cannot be built."""


class LabUnavailable(LabTrouble):
    """This machine lacks what the lab is made of; its scenarios are skipped, with this reason."""


class EmulatorFault(LabTrouble):
    """The emulator of a lab host died by itself, or its clock jumped: its bug and not Ferry's."""
