"""Measures Wye and Open vSwitch on the same cases, in turns on one core. Run by compare.sh, which builds what is needed.

A round of a case is: Wye, the floor, Open vSwitch with each of its caches; the next round goes backwards. While one is
measured, the others are stopped (SIGSTOP), so each has the core and its caches to itself.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from fnmatch import fnmatch

import report
import traffic
from cases import CASES, DEFAULT, LAYOUTS
from machine import HugePages, Missing, output_of_first, sh
from ovs import Ovs, check_installed
from testpmd import Testpmd

REFERENCE_GHZ = 2.6  # cycles are those of a time stamp counter of this frequency, as in `wye bench`
WINDOW_S = 0.3
HUGE_MIB = 384


class Wye:
    def __init__(self, tool, core):
        self.command = ["taskset", "-c", str(core), tool, "bench", "--json"]
        listed = sh([tool, "bench", "--list", "--json"]).splitlines()
        self.cases = {json.loads(line)["case"] for line in listed}

    def ns_per_packet(self, case, seconds):
        return json.loads(output_of_first([*self.command, "--case", f"={case}", "--seconds", str(seconds)]))["ns_per_packet"]


class Run:
    """Everything that is alive during a run."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.wye = Wye(args.wye, args.core)
        self.shared = (work, args.core, args.control_core, args.player, not args.no_huge)
        self.floor = self.ovs = self.layout = None

    def __enter__(self):
        self.floor = Testpmd(*self.shared)
        self.floor.process.sleep()
        return self

    def __exit__(self, *_):
        for process in (self.ovs, self.floor):
            if process:
                process.end()

    def lay_out(self, layout):
        """Has Open vSwitch awake, started anew if the case needs other bridges than the one before."""
        if layout == self.layout:
            self.ovs.vswitchd.wake()
            return
        if self.ovs:
            self.ovs.end()
            shutil.rmtree(self.ovs.run)
        self.ovs = Ovs(*self.shared, prefix=self.args.ovs_prefix)
        self.layout = layout
        LAYOUTS[layout](self.ovs)

    def measure(self, case):
        """The rows of a case, one for each setting of Open vSwitch's caches."""
        frames = traffic.trace(case.flows, case.build)
        # A file for each case: the plug-in keeps what it has read.
        pcap = os.path.join(self.work, f"{case.name}.pcap")
        traffic.write_pcap(pcap, frames)
        self.floor.process.wake()
        self.floor.play(pcap)
        self.floor.process.sleep()
        self.lay_out(case.layout)
        self.ovs.vswitchd.sleep()
        self.set_up = None
        rounds = []
        for number in range(self.args.rounds):
            steps = [("wye", self.measure_wye), ("floor", self.measure_floor)]
            steps += [(caches, self.measure_ovs) for caches in case.caches]
            figures = {}
            for step, measure in steps if number % 2 == 0 else reversed(steps):
                figures[step] = measure(case, step, pcap)
            rounds.append(figures)
        os.unlink(pcap)
        return [report.Row(case, caches, rounds, len(frames[0])) for caches in case.caches]

    def measure_wye(self, case, _step, _pcap):
        if case.wye not in self.wye.cases:
            return None
        return self.wye.ns_per_packet(case.wye, self.args.seconds) * REFERENCE_GHZ

    def measure_floor(self, _case, _step, _pcap):
        return self.floor.ns_per_packet(self.args.seconds) * REFERENCE_GHZ

    def measure_ovs(self, case, caches, pcap):
        """The window with the lowest cost."""
        self.ovs.vswitchd.wake()
        if self.set_up != caches:
            self.ovs.play(None)
            self.ovs.set_caches(caches)
            self.ovs.install(case.rules, list(case.megaflows(self.ovs.datapath_ports())))
            self.ovs.play(pcap)
            self.set_up = caches
        # A flow enters the exact-match cache with one packet in a hundred.
        self.ovs.warm_up(max(300 * min(case.flows, 8192), 3 * case.flows) if caches == "emc" else 3 * case.flows)
        windows = [self.ovs.window(WINDOW_S) for _ in range(max(1, round(self.args.seconds / WINDOW_S)))]
        self.ovs.vswitchd.sleep()
        best = min(windows, key=lambda w: w.ns_per_packet)
        best.tsc_cycles = best.ns_per_packet * REFERENCE_GHZ
        return best


def chosen(patterns):
    if not patterns:
        return [c for c in CASES if c.name in DEFAULT]
    cases = [c for c in CASES if any(fnmatch(c.name, p) for p in patterns)]
    if not cases:
        sys.exit(f"no case matches {' '.join(patterns)}; --list names them")
    return cases


def arguments():
    parser = argparse.ArgumentParser(prog="compare.sh", description="Measures Wye and Open vSwitch on the same cases, in turns.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="patterns like 'masks*'; by default the short cases")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure of a round")
    parser.add_argument("--record", action="store_true", help="write to benches/record/ too")
    parser.add_argument("--disturbed", action="store_true", help="say in the record that the machine was not idle")
    parser.add_argument("--no-huge", action="store_true", help="do without huge pages: slower, for machines that give none")
    parser.add_argument("--ovs-prefix", help="an Open vSwitch of your own, built with DPDK, instead of Debian's")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that is measured")
    for name in ("wye", "player", "command-line"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    if args.core not in os.sched_getaffinity(0):
        parser.error(f"--core: there is no core {args.core} for this process")
    others = os.sched_getaffinity(0) - {args.core}
    if not others:
        sys.exit("two cores are needed: one is measured, all else runs on the other")
    args.control_core = min(others)
    args.ovs_prefix = args.ovs_prefix and os.path.abspath(args.ovs_prefix)
    return args


def main():
    args = arguments()
    if args.list:
        width = max(len(c.name) for c in CASES)
        for case in CASES:
            print(f"{case.name:{width}}  {case.about}{'' if case.name in DEFAULT else ' (only if named)'}")
        return
    cases = chosen(args.cases)
    check_installed(args.ovs_prefix)
    traffic.check_same_as_wye()
    record = report.Record(args) if args.record else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Not in /tmp: DPDK loads no plug-in from below a folder that everybody may write to.
    work = tempfile.mkdtemp(prefix="wye-peers-", dir="/run")
    try:
        shutil.copy(args.player, os.path.join(work, "player.so"))
        args.player = os.path.join(work, "player.so")
        rows = []
        with HugePages(0 if args.no_huge else HUGE_MIB), Run(args, work) as run:
            for case in sorted(cases, key=lambda c: list(LAYOUTS).index(c.layout)):
                print(f"measuring {case.name}: {case.about}", file=sys.stderr, flush=True)
                rows += run.measure(case)
            head = report.head(args, run.ovs.version)
        report.table(sys.stdout, head, rows)
        if record:
            record.write(head, rows)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    try:
        main()
    except Missing as missing:
        print(f"compare.sh: {missing}", file=sys.stderr)
        sys.exit(77)
    except RuntimeError as failed:
        print(f"compare.sh: {failed}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
