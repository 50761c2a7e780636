# SPDX-License-Identifier: Apache-2.0
"""The cables of the lab.

    host-a eth1 ----- guest LAN ----- eth1 witness eth2 ----- guest LAN ----- eth1 host-b
    host-a eth2 ------------------- migration LAN --------------------------- eth2 host-b
    host-a eth3 ----- storage LAN --- eth3 witness eth4 ----- storage LAN --- eth3 host-b

The witness joins the two halves of the guest LAN and of the storage LAN by bridges, serves the
shared storage and runs the programs that judge outages. Three networks, so that migration traffic
delays neither a guest's packets nor its disk, and a cut of one leaves the others whole. eth0 is
everybody's own control network to the harness.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cable:
    """A connection between two cards: QEMU's `stream` backend on a Unix socket."""
    name: str
    listener: tuple  # host and its card
    caller: tuple


CABLES = (
    Cable("guest-a", ("witness", "eth1"), ("host-a", "eth1")),
    Cable("guest-b", ("witness", "eth2"), ("host-b", "eth1")),
    Cable("storage-a", ("witness", "eth3"), ("host-a", "eth3")),
    Cable("storage-b", ("witness", "eth4"), ("host-b", "eth3")),
    Cable("migration", ("host-a", "eth2"), ("host-b", "eth2")),
)

# Order of start: whoever listens must be there before whoever calls.
HOSTS = ("witness", "host-a", "host-b")

GUEST_LAN = {"host-a": "10.1.0.1", "host-b": "10.1.0.2", "witness": "10.1.0.3"}
MIGRATION_LAN = {"host-a": "10.2.0.1", "host-b": "10.2.0.2"}
STORAGE_LAN = {"host-a": "10.3.0.1", "host-b": "10.3.0.2", "witness": "10.3.0.3"}
GUEST_ADDRESS = "10.1.0.10"

IP = "/sbin/ip"  # by path: busybox would take its own, smaller one

HOSTS_FILE = "\n".join(["127.0.0.1 localhost", "10.2.0.1 host-a", "10.2.0.2 host-b",
                        "10.3.0.3 witness", f"{GUEST_ADDRESS} guest", ""])


def cards(host, folder):
    """Arguments for the network cards of a host in the order eth1, eth2, ..., and its sockets.

    Returns also the paths that the host will listen on. Every card has its own MAC address: two
    equal ones on a network look like a dead cable.
    """
    ends = {}
    for cable in CABLES:
        for (name, card), role in ((cable.listener, "server=on"), (cable.caller, "server=off")):
            if name == host:
                ends[card] = (cable, role)
    arguments, listens = [], []
    for card in sorted(ends):
        cable, role = ends[card]
        path = folder / f"{cable.name}.cable"
        if role == "server=on":
            path.unlink(missing_ok=True)
            listens.append(path)
        mac = f"52:54:00:fe:{HOSTS.index(host):02x}:{int(card[3:]):02x}"
        arguments.append(["-netdev", f"stream,id={card},{role},addr.type=unix,addr.path={path}",
                          "-device", f"virtio-net-pci,netdev={card},id=nic-{card},romfile=,"
                                     f"mac={mac}"])
    return arguments, listens


def setup_commands(host):
    """Shell commands that bring up the networks of a host."""
    guest_cards = {"witness": ["eth1", "eth2"]}.get(host, ["eth1"])
    lines = bridge("guests", guest_cards, GUEST_LAN[host])
    if host == "witness":
        lines += bridge("storage", ["eth3", "eth4"], STORAGE_LAN[host])
    else:
        lines += [f"{IP} addr add {STORAGE_LAN[host]}/24 dev eth3", f"{IP} link set eth3 up",
                  f"{IP} addr add {MIGRATION_LAN[host]}/24 dev eth2", f"{IP} link set eth2 up"]
    return lines


def bridge(name, members, address):
    """A bridge without spanning tree, so that it forwards at once."""
    lines = [f"{IP} link add {name} type bridge forward_delay 0 stp_state 0",
             f"{IP} addr add {address}/24 dev {name}"]
    for member in members:
        lines += [f"{IP} link set {member} master {name}", f"{IP} link set {member} up"]
    return lines + [f"{IP} link set {name} up"]
