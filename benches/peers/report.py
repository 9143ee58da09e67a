"""The table, and the record: the same table and one JSON object per row in benches/record/."""

import json
import os
import statistics
import subprocess
import time

RECORDS = os.path.join(os.path.dirname(__file__), "..", "record")

LEGEND = """\
TSC cycles per packet at 2.6 GHz, one core, bursts of 32: the best round, and the median of {rounds}. All took turns on one core.
Wye          Worker::process alone. No port: the frame is in its buffer before the clock starts, and what is sent stays there.
Open vSwitch what its PMD thread counts (pmd-perf-show), less the time in which the core was taken away: its datapath, and
             of its ports: polling all of them, allocating a buffer, copying the frame into it, freeing it when it is sent.
floor        dpdk-testpmd with the same frames, devices and driver: polling, allocating, copying, freeing, and no more.
less floor   Open vSwitch without the floor. What it does for a port around its datapath is still in it (buffer metadata,
             batches for output, counters, empty polls): all that it does at the least is in the row 'forward'.
ratio        'less floor' to Wye.
caches       emc: the exact-match cache as shipped. smc: the signature cache instead. none: neither. Wye has its own in each row.
*            the setting that is the cheapest for Open vSwitch in this case: the ratio to quote.
Packets come with an RSS hash and checked checksums, as from a NIC: Open vSwitch uses them, Wye hashes and parses by itself."""


def number(value, digits=1):
    return "-" if value is None else f"{value:.{digits}f}"


class Row:
    """A case with one setting of Open vSwitch's caches."""

    def __init__(self, case, caches, rounds, frame_len):
        self.case, self.caches, self.frame_len = case, caches, frame_len
        self.wye = [r["wye"] for r in rounds if r["wye"] is not None]
        self.floor = [r["floor"] for r in rounds]
        self.windows = [r[caches] for r in rounds]
        self.ovs = [w.tsc_cycles for w in self.windows]

    def by(self, which):
        """Wye, Open vSwitch, the floor, Open vSwitch less the floor, the ratio; `which` is min or median over the rounds."""
        wye = which(self.wye) if self.wye else None
        ovs, floor = which(self.ovs), which(self.floor)
        less = ovs - floor
        return wye, ovs, floor, less, less / wye if wye and less > 0 else None

    def doubts(self):
        """Reasons not to believe the row."""
        sent = sum(w.sent for w in self.windows) / max(1.0, sum(w.packets for w in self.windows))
        if abs(sent - self.case.sent) > 0.02 * self.case.sent:
            yield f"Open vSwitch sent {sent:.2f} packets for each that it received, not {self.case.sent}"
        upcalls = sum(w.upcalls for w in self.windows)
        if upcalls > 0.001 * sum(w.packets for w in self.windows):
            yield f"{upcalls:.0f} packets missed all flows"
        if self.case.wye and not self.wye:
            yield f"this Wye has no case '{self.case.wye}'"

    def least_share(self):
        """The least part of a window in which Open vSwitch had the core."""
        return min(w.had_core for w in self.windows)

    def hits(self):
        """Where packets found their flow, percent of lookups."""
        passes = max(1.0, sum(w.passes for w in self.windows))
        shares = {name: sum(w.hits[name] for w in self.windows) / passes for name in self.windows[0].hits}
        return {name: round(100 * share, 1) for name, share in shares.items() if share > 0}

    def columns(self):
        cells = []
        for digits, best, median in zip([1, 1, 1, 1, 2], self.by(min), self.by(statistics.median)):
            cells += [f"{number(best, digits):>7} {number(median, digits):>7}"]
        return "  ".join(cells)

    def json(self):
        best, median = self.by(min), self.by(statistics.median)
        names = ["wye", "ovs", "floor", "ovs_less_floor", "ratio"]

        def rounded(values):
            return {n: None if v is None else round(v, 2) for n, v in zip(names, values)}

        return {
            "case": self.case.name,
            "about": self.case.about,
            "wye_case": self.case.wye,
            "ovs_caches": self.caches,
            "frame_len": self.frame_len,
            "tsc_cycles_per_packet": {"best": rounded(best), "median": rounded(median)},
            "rounds": {
                "wye": [round(v, 2) for v in self.wye],
                "ovs": [round(v, 2) for v in self.ovs],
                "floor": [round(v, 2) for v in self.floor],
            },
            "ovs_hits_pct": self.hits(),
            "ovs_had_core_pct": [round(100 * w.had_core) for w in self.windows],
            "doubts": list(self.doubts()),
        }


def first_line(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def head(args, ovs_version):
    """What was measured, on what, how: a dictionary of strings."""
    with open("/proc/cpuinfo") as f:
        cpu = next((line.split(": ")[1].strip() for line in f if line.startswith("model name")), "unknown")
    return {
        "command": args.command_line,
        "disturbed": "yes" if args.disturbed else "no",
        "date": time.strftime("%Y-%m-%d"),
        "wye": first_line("git", "-C", RECORDS, "rev-parse", "--short", "HEAD"),
        "rustc": first_line("rustc", "--version"),
        "ovs": f"{ovs_version}, {'built apart' if args.ovs_prefix else 'Debian'}",
        "dpdk": first_line("pkg-config", "--modversion", "libdpdk"),
        "memory": "no huge pages" if args.no_huge else "2 MiB pages",
        "cpu": cpu,
        "linux": os.uname().release,
        "rounds": args.rounds,
    }


def table(out, head, rows):
    for key in ("command", "wye", "ovs", "cpu"):
        more = {"wye": f", {head['rustc']}", "ovs": f", DPDK {head['dpdk']}, {head['memory']}", "cpu": f", Linux {head['linux']}"}
        print(f"# {key}: {head[key]}{more.get(key, '')}", file=out)
    if head["disturbed"] == "yes":
        print("# disturbed: other programs ran on this machine; figures are upper bounds, ratios are rough", file=out)
    titles = ["Wye", "Open vSwitch", "floor", "less floor", "ratio"]
    width = max(len(row.case.name) for row in rows)
    print(f"{'case':{width}} {'caches':6} " + "  ".join(f"{t:>15}" for t in titles), file=out)
    print(f"{'':{width}} {'':6} " + "  ".join(f"{'best':>7} {'median':>7}" for _ in titles), file=out)
    for row in rows:
        others = [r for r in rows if r.case is row.case]
        mark = " *" if len(others) > 1 and row is min(others, key=lambda r: min(r.ovs)) else ""
        print(f"{row.case.name:{width}} {row.caches:6} {row.columns()}{mark}".rstrip(), file=out)
    share = min(row.least_share() for row in rows)
    if share < 0.97:
        print(f"! the machine was not idle: in one window Open vSwitch had only {share:.0%} of the core", file=out)
    for row in rows:
        for doubt in row.doubts():
            print(f"! {row.case.name}, {row.caches}: {doubt}", file=out)
    print("\n" + LEGEND.format(rounds=head["rounds"]), file=out)


class Record:
    """Two new files in benches/record/, named by the date or by NAME; an old record is never written over."""

    def __init__(self, args):
        base = os.path.join(RECORDS, os.environ.get("NAME", time.strftime("%Y-%m-%d")) + "-peers" + ("-disturbed" if args.disturbed else ""))
        self.text, self.lines = base + ".txt", base + ".json"
        for path in (self.text, self.lines):
            if os.path.exists(path):
                raise SystemExit(f"{os.path.normpath(path)} exists: a record is not written over")

    def write(self, head, rows):
        with open(self.text, "w") as f:
            table(f, head, rows)
        with open(self.lines, "w") as f:
            print(json.dumps({"head": head}), file=f)
            for row in rows:
                print(json.dumps(row.json()), file=f)
