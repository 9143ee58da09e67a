"""Open vSwitch with its userspace datapath (dpif-netdev) over DPDK ports, private to this run: own database, sockets, namespace."""

import glob
import os
import re
import time

from machine import Missing, Process, play, remove_runtime_dir, sh

DEBIAN_VSWITCHD = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"

# What may answer a packet before the megaflow table: the exact-match cache as Open vSwitch ships it, its signature cache
# instead, or neither.
CACHES = {
    "emc": {"emc-insert-inv-prob": "100", "smc-enable": "false"},
    "smc": {"emc-insert-inv-prob": "0", "smc-enable": "true"},
    "none": {"emc-insert-inv-prob": "0", "smc-enable": "false"},
}

IN, OUT, OUT2, TUNNEL = 1, 2, 3, 10
PORTS = {"in": (IN, "net_null_in,size=64"), "out": (OUT, "net_null_out,no-rx=1"), "out2": (OUT2, "net_null_out2,no-rx=1")}


class Ovs:
    def __init__(self, work, core, control_core, player, huge, prefix=None):
        self.run = os.path.join(work, "ovs")
        os.makedirs(self.run)
        self.core, self.prefix = core, f"wye-peers-ovs-{os.getpid()}"
        base = prefix or "/usr"
        self.bin = f"{base}/bin"
        self.env = dict(os.environ, OVS_RUNDIR=self.run, OVS_LOGDIR=self.run, OVS_DBDIR=self.run, OVS_SYSCONFDIR=self.run)
        self.processes, self.vswitchd = [], None
        vswitchd = f"{prefix}/sbin/ovs-vswitchd" if prefix else DEBIAN_VSWITCHD
        self.version = re.search(r"[\d.]+\d", sh([vswitchd, "--version"]).split("Open vSwitch")[1]).group()
        try:
            self.start(vswitchd, f"{base}/sbin/ovsdb-server", f"{base}/share/openvswitch/vswitch.ovsschema",
                       control_core, player, huge)
        except BaseException:
            self.end()
            raise

    def start(self, vswitchd, ovsdb_server, schema, control_core, player, huge):
        sh([f"{self.bin}/ovsdb-tool", "create", f"{self.run}/conf.db", schema])
        self.spawn(control_core, [ovsdb_server, f"--remote=punix:{self.run}/db.sock", f"{self.run}/conf.db"], "ovsdb.out")
        self.wait("the database", lambda: os.path.exists(f"{self.run}/db.sock"))
        memory = "--in-memory" if huge else "--no-huge --legacy-mem -m 512"
        settings = {
            "dpdk-init": "true",
            "dpdk-extra": f"-d {player} --file-prefix={self.prefix} --no-pci {memory}",
            "dpdk-lcore-mask": hex(1 << control_core),
            "pmd-cpu-mask": hex(1 << self.core),
            # Flows stay although no packet of theirs comes while another program has the core.
            "max-idle": "3600000",
        }
        if huge:
            settings |= {"dpdk-socket-mem": "256", "dpdk-socket-limit": "256"}
        self.vsctl("--no-wait", "init")
        self.vsctl("--no-wait", "set", "Open_vSwitch", ".", *(f'other_config:{k}="{v}"' for k, v in settings.items()))
        command = [vswitchd, f"unix:{self.run}/db.sock", f"--unixctl={self.run}/vswitchd.ctl"]
        self.vswitchd = self.spawn(
            control_core, ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command], "vswitchd.out"
        )
        self.wait("DPDK in ovs-vswitchd", lambda: "true" in self.vsctl("get", "Open_vSwitch", ".", "dpdk_initialized"))

    def spawn(self, core, command, log):
        command = ["taskset", "-c", str(core), *command]
        self.processes.append(Process(command, os.path.join(self.run, log), self.env))
        return self.processes[-1]

    def wait(self, what, is_there):
        for _ in range(150):
            time.sleep(0.1)
            for process in self.processes:
                process.check()
            if is_there():
                return
        raise RuntimeError(f"{what} does not come up\n{self.processes[-1].said()}")

    def vsctl(self, *words):
        return sh([f"{self.bin}/ovs-vsctl", "--timeout=30", f"--db=unix:{self.run}/db.sock", *words], self.env)

    def ofctl(self, *words):
        return sh([f"{self.bin}/ovs-ofctl", "-O", "OpenFlow13", *words], self.env)

    def appctl(self, *words):
        return sh([f"{self.bin}/ovs-appctl", "-t", f"{self.run}/vswitchd.ctl", *words], self.env)

    def ip(self, *words):
        """`ip`, in the namespace of this Open vSwitch."""
        return sh(["nsenter", f"--net=/proc/{self.vswitchd.popen.pid}/ns/net", "ip", *words])

    def bridge(self, name, ports):
        self.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail-mode=secure",
                   "protocols=OpenFlow10,OpenFlow13")
        for port in ports:
            number, device = PORTS[port]
            self.vsctl("add-port", name, port, "--", "set", "interface", port, "type=dpdk", "mtu_request=1600",
                       f"options:dpdk-devargs={device}", f"ofport_request={number}")
            error = self.vsctl("get", "interface", port, "error").strip()
            if error != "[]":
                raise RuntimeError(f"port {port}: {error}")

    def datapath_ports(self):
        """The datapath's numbers of the ports, by name."""
        return {name: int(number) for number, name in re.findall(r"port (\d+): (\S+)", self.appctl("dpctl/show"))}

    def set_caches(self, caches):
        self.vsctl("set", "Open_vSwitch", ".", *(f"other_config:{k}={v}" for k, v in CACHES[caches].items()))

    def install(self, rules, megaflows=()):
        """Replaces all rules (OpenFlow, by bridge) and all megaflows. No packet may come meanwhile."""
        for bridge, flows in rules.items():
            self.ofctl("del-flows", bridge)
            for flow in flows:
                self.ofctl("add-flow", bridge, flow)
        self.appctl("dpctl/del-flows")
        if megaflows:
            path = os.path.join(self.run, "megaflows")
            with open(path, "w") as f:
                f.writelines(f"add {flow}\n" for flow in megaflows)
            said = self.appctl("dpctl/add-flows", path)
            if said.strip():
                raise RuntimeError(f"dpctl/add-flows: {said[:500]}")

    def play(self, pcap):
        play(self.prefix, "net_null_in", pcap)

    def warm_up(self, packets):
        """Lets at least so many packets pass."""
        carried = 0

        def enough():
            nonlocal carried
            carried += self.window(0.3).packets
            return carried >= packets

        self.wait("traffic", enough)

    def window(self, seconds):
        """What `pmd-perf-show` counts in so many seconds, and the part of them in which the thread had the core."""
        # The thread clears its counts itself, in its next round: without one in the window there is nothing to tell.
        for _ in range(100):
            window = self.try_window(seconds)
            if window:
                return window
        raise RuntimeError("Open vSwitch's thread does not run")

    def try_window(self, seconds):
        threads, start = self.vswitchd.thread_ns(), time.monotonic()
        self.appctl("dpif-netdev/pmd-stats-clear")
        time.sleep(seconds)
        said = self.appctl("dpif-netdev/pmd-perf-show")
        had_core = self.vswitchd.busiest_thread_ns(threads) / 1e9 / (time.monotonic() - start)
        if not re.search(r"Used TSC cycles:\s+[1-9]", said.split(f"core_id {self.core}:")[1]):
            return None
        return Window(said, self.core, min(1.0, had_core))

    def end(self):
        for process in reversed(self.processes):
            process.end()
        remove_runtime_dir(self.prefix)


class Window:
    """One window of the PMD thread on `core`, as `pmd-perf-show` tells it."""

    def __init__(self, said, core, had_core):
        text = said.split(f"core_id {core}:")[1]

        def number(pattern, where=text):
            found = re.search(pattern, where)
            return float(found.group(1)) if found else 0.0

        used, busy = number(r"Used TSC cycles:\s+(\d+)"), number(r"busy iterations:.*?([\d.]+) % of used") / 100
        seconds = number(r"Measurement duration:\s+([\d.]+)", said)
        self.tsc_ghz = used / (number(r"Used TSC cycles:.*?([\d.]+) % of total") / 100) / seconds / 1e9
        self.packets = number(r"Rx packets:\s+(\d+)")
        self.sent = number(r"Tx packets:\s+(\d+)")
        self.upcalls = number(r"- Upcalls:\s+(\d+)")
        self.passes = number(r"Datapath passes:\s+(\d+)")
        self.hits = {name: number(rf"{line} [Hh]its:\s+(\d+)") for name, line in
                     [("simple", "Simple Match"), ("emc", "EMC"), ("smc", "SMC"), ("megaflow", "Megaflow")]}
        self.had_core = had_core
        # It counts cycles from outside: what others computed on this core in between is in them.
        self.ns_per_packet = used * busy / max(1.0, self.packets) / self.tsc_ghz * had_core


def check_installed(prefix):
    needed = [f"{prefix}/sbin/ovs-vswitchd"] if prefix else [DEBIAN_VSWITCHD]
    if not all(map(os.path.exists, needed)):
        raise Missing(f"{needed[0]} is not there")
    if not glob.glob("/usr/lib/*/dpdk/pmds-*/librte_net_null.so*"):
        raise Missing("DPDK's net_null driver is not there")
