"""The floor: dpdk-testpmd forwards the same traces between the same ports and does nothing else with them."""

import json
import os
import time

from machine import Process, play, remove_runtime_dir, telemetry


class Testpmd:
    def __init__(self, work, core, control_core, player, huge):
        self.prefix = f"wye-peers-floor-{os.getpid()}"
        memory = ["--in-memory", "-m", "64"] if huge else ["--no-huge", "-m", "128"]
        self.process = Process(
            ["taskset", "-c", f"{control_core},{core}", "dpdk-testpmd"]
            + ["-l", f"{control_core},{core}", f"--main-lcore={control_core}", f"--file-prefix={self.prefix}"]
            + ["--no-pci", "-d", player, *memory]
            + ["--vdev", "net_null_in,size=64", "--vdev", "net_null_out,no-rx=1", "--"]
            + ["--forward-mode=io", "--auto-start", "--nb-cores=1", "--burst=32", "--mbcache=512"]
            + ["--total-num-mbufs=16384"],
            os.path.join(work, "testpmd.log"),
        )
        try:
            self.wait_until_it_forwards()
        except BaseException:
            self.end()
            raise

    def wait_until_it_forwards(self):
        for _ in range(100):
            time.sleep(0.1)
            self.process.check()
            try:
                if self.packets() > 0:
                    return
            except OSError:
                pass  # the socket is not there yet
        raise RuntimeError(f"dpdk-testpmd does not forward\n{self.process.said()}")

    def packets(self):
        return json.loads(telemetry(self.prefix, "/ethdev/stats,0"))["/ethdev/stats"]["ipackets"]

    def play(self, pcap):
        play(self.prefix, "net_null_in", pcap)

    def ns_per_packet(self, seconds):
        """The best of windows of a fifth of a second. testpmd polls all the time, so what time it had is what it cost."""
        self.process.wake()
        time.sleep(0.1)
        best, until = float("inf"), time.monotonic() + seconds
        while time.monotonic() < until:
            packets, threads = self.packets(), self.process.thread_ns()
            time.sleep(0.2)
            carried = self.packets() - packets
            best = min(best, self.process.busiest_thread_ns(threads) / max(1, carried))
        self.process.sleep()
        return best

    def end(self):
        self.process.end()
        remove_runtime_dir(self.prefix)
