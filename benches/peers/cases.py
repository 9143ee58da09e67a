"""The cases: what Wye measures under a name of `wye bench --list`, and the same for Open vSwitch.

To add one: a line in `CASES`. Its trace must be the one that Wye's case sends (traffic.py). If it needs other bridges than
those in `LAYOUTS`, a function there.
"""

from dataclasses import dataclass, field
from typing import Callable

import traffic
from ovs import IN, OUT, OUT2, TUNNEL

LOCAL_MAC, REMOTE_MAC = "02:00:00:00:00:aa", "02:00:00:00:00:bb"
LOCAL_IP, REMOTE_IP, VNI = "172.31.1.1", "172.31.1.2", 1000


@dataclass(frozen=True)
class Case:
    """One case."""

    name: str
    about: str
    # The same in `wye bench`; None: there is none, the row shows the peer alone.
    wye: str | None
    flows: int = 1000
    build: Callable = traffic.frame
    # Open vSwitch: bridges and ports, rules by bridge, megaflows installed before the first packet (from the numbers of the
    # ports), what caches to try, packets sent per packet received.
    layout: str = "bridge"
    rules: dict = field(default_factory=dict)
    megaflows: Callable = lambda ports: ()
    caches: tuple = ("emc",)
    sent: int = 1


def one_bridge(ovs):
    ovs.bridge("br0", ["in", "out", "out2"])


def underlay(ovs, port):
    """A bridge with an address, through which a tunnel port of br0 sends, and a neighbour whose MAC address it knows."""
    ovs.bridge("underlay", [port])
    ovs.vsctl("set", "bridge", "underlay", f'other-config:hwaddr="{LOCAL_MAC}"')
    ovs.ip("addr", "add", f"{LOCAL_IP}/24", "dev", "underlay")
    ovs.ip("link", "set", "underlay", "up")
    ovs.vsctl("add-port", "br0", "tunnel", "--", "set", "interface", "tunnel", "type=vxlan",
              f"options:remote_ip={REMOTE_IP}", f"options:key={VNI}", f"ofport_request={TUNNEL}")
    ovs.wait("the route of the tunnel", lambda: "underlay" in ovs.appctl("ovs/route/lookup", REMOTE_IP))
    ovs.appctl("tnl/neigh/set", "underlay", REMOTE_IP, REMOTE_MAC)


def push_layout(ovs):
    ovs.bridge("br0", ["in"])
    underlay(ovs, "out")


def pop_layout(ovs):
    ovs.bridge("br0", ["out"])
    underlay(ovs, "in")


LAYOUTS = {"bridge": one_bridge, "push": push_layout, "pop": pop_layout}


def masks(count):
    """The 1024 megaflows of Wye's cases: the destination's /16, under `count` masks of source and destination port."""

    def megaflows(ports):
        for i in range(1024):
            which = i % 64 % count
            prefix, bits = 1 + which // 8, 1 + which % 8
            source_mask = 0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF
            port_mask = 0xFFFF << (8 - bits) & 0xFFFF
            yield (
                f"recirc_id(0),in_port({ports['in']}),packet_type(ns=0,id=0),eth(dst=02:00:00:00:00:02),eth_type(0x0800),"
                f"ipv4(src={dotted(0x0A000000 & source_mask)}/{dotted(source_mask)},dst={20 + i % 64}.{i // 64}.0.0/255.255.0.0,"
                f"proto=17,frag=no),udp(dst={53 & port_mask}/{port_mask:#x}) {ports['out']}"
            )

    return megaflows


def dotted(address):
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def l4(actions):
    return {"br0": [f"in_port={IN},udp,tp_dst=53,actions={actions}"]}


def all_to_out():
    return {"br0": [f"in_port={IN},actions=output:{OUT}"]}


def masks_case(name, about, count, flows, caches):
    return Case(name, about, name, flows=flows, rules=all_to_out(), megaflows=masks(count), caches=caches)


def wye_tunnel_case(what, size, flows):
    return f"vxlan-{what}-{'' if size == 64 else f'{size}-'}{flows // 1000}k"


def push_case(size, flows):
    """A frame of `size` bytes goes into a tunnel."""
    name = f"vxlan-push-{size}-{flows // 1000}k"
    rules = {"br0": [f"in_port={IN},udp,actions=output:{TUNNEL}"], "underlay": [f"in_port=LOCAL,actions=output:{OUT}"]}
    return Case(name, f"{size} B into a VXLAN tunnel, {flows // 1000}k connections", wye_tunnel_case("encap", size, flows),
                flows=flows, layout="push", rules=rules, build=lambda i: traffic.frame(i, size))


def pop_case(size, flows):
    """A frame of `size` bytes comes out of a tunnel, is looked up again, and goes on."""
    name = f"vxlan-pop-{size}-{flows // 1000}k"
    rules = {"underlay": [f"in_port={IN},actions=LOCAL"], "br0": [f"in_port={TUNNEL},udp,actions=output:{OUT}"]}
    macs = bytes.fromhex((LOCAL_MAC + REMOTE_MAC).replace(":", ""))
    addresses = tuple(int.from_bytes(map(int, a.split("."))) for a in (REMOTE_IP, LOCAL_IP))
    return Case(name, f"{size} B out of a VXLAN tunnel and on, {flows // 1000}k connections",
                wye_tunnel_case("decap", size, flows), flows=flows, layout="pop", rules=rules, build=lambda i: traffic.vxlan(traffic.frame(i, size), i, VNI, macs, addresses))


ANY, ANY_BUT_EMC = ("emc", "smc", "none"), ("smc", "none")
REWRITE = f"mod_dl_src:02:00:00:00:00:11,mod_dl_dst:02:00:00:00:00:12,dec_ttl,output:{OUT}"

TUNNELLED = [(64, 1000), (512, 1000), (1420, 1000), (64, 100_000)]  # bytes of the inner frame, connections

CASES = [
    Case("forward", "from port to port, nothing matched but the port: the least that the peer does", None, rules=all_to_out()),
    Case("l4-1k", "1 L4 megaflow, 1k connections", "l4-1k", rules=l4(f"output:{OUT}")),
    masks_case("mega1024-1k", "1024 megaflows, 1 mask, 1k connections", 1, 1000, ("emc", "none")),
    masks_case("masks16-1k", "1024 megaflows, 16 masks, 1k connections", 16, 1000, ANY),
    masks_case("masks64-1k", "1024 megaflows, 64 masks, 1k connections", 64, 1000, ANY),
    Case("rewrite", "l4-1k with set(eth) and dec_ttl", "rewrite-1k", rules=l4(REWRITE)),
    Case("push-vlan", "l4-1k with push_vlan", "push-vlan-1k",
         rules=l4(f"push_vlan:0x8100,set_field:4196->vlan_vid,output:{OUT}")),
    Case("output2", "l4-1k with output to two ports", "output2-1k", rules=l4(f"output:{OUT},output:{OUT2}"), sent=2),
    Case("l4-100k", "1 L4 megaflow, 100k connections", "l4-100k", flows=100_000, rules=l4(f"output:{OUT}"), caches=ANY),
    masks_case("masks16-100k", "1024 megaflows, 16 masks, 100k connections", 16, 100_000, ANY_BUT_EMC),
    masks_case("masks64-100k", "1024 megaflows, 64 masks, 100k connections", 64, 100_000, ANY_BUT_EMC),
    masks_case("masks64-1m", "1024 megaflows, 64 masks, 1M connections", 64, 1_000_000, ("smc",)),
    *(push_case(*kind) for kind in TUNNELLED),
    *(pop_case(*kind) for kind in TUNNELLED),
]

# Without a pattern these are measured.
DEFAULT = ["forward", "l4-1k", "mega1024-1k", "masks16-1k", "masks64-1k", "rewrite", "push-vlan", "output2"]
