"""What every peer needs of the machine: commands, processes that are ended by their id, huge pages, DPDK's telemetry socket."""

import os
import signal
import socket
import subprocess

HUGE_PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/"


class Missing(Exception):
    """The machine lacks something that a peer needs; the text says what to do about it."""


def sh(command, env=None):
    """The output of `command`, a list; an error with that output if it fails."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout.strip()}")
    return done.stdout


def start(command, env=None, **files):
    """Starts `command` before all others on its cores, in a session of its own: an interrupt from the keyboard is for us alone."""
    # Ended even if we are killed: it might be stopped, and hold huge pages.
    command = ["setpriv", "--pdeathsig", "KILL", "nice", "-n", "-20", *command]
    process = subprocess.Popen(command, env=env, start_new_session=True, **files)
    try:
        # Where the kernel groups processes by session, niceness counts only within a group, and the group has its own.
        with open(f"/proc/{process.pid}/autogroup", "w") as f:
            f.write("-20")
    except OSError:
        pass
    return process


def output_of_first(command):
    """The output of `command`, which runs before all others on its cores."""
    process = start(command, stdout=subprocess.PIPE, text=True)
    try:
        output = process.communicate()[0]
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return output


class Process:
    """A program that runs beside us. Only one of those that share the measured core may be awake: the others are stopped."""

    def __init__(self, command, log, env=None):
        with open(log, "w") as f:
            self.popen = start(command, env, stdin=subprocess.PIPE, stdout=f, stderr=subprocess.STDOUT)
        self.log = log
        self.command = command

    def check(self):
        if self.popen.poll() is not None:
            raise RuntimeError(f"ended early: {' '.join(self.command)}\n{self.said()}")

    def said(self):
        """What in its log is about the trouble, or else the end of it: who refuses an option explains all of them."""
        with open(self.log, errors="replace") as f:
            lines = f.readlines()
        return "".join([line for line in lines if "EAL" in line or "ERR" in line] or lines[-15:])

    def sleep(self):
        self.popen.send_signal(signal.SIGSTOP)

    def wake(self):
        self.check()
        self.popen.send_signal(signal.SIGCONT)

    def thread_ns(self):
        """The time that each of its threads has had a core, in ns."""
        times, tasks = {}, f"/proc/{self.popen.pid}/task"
        for thread in os.listdir(tasks):
            try:
                with open(f"{tasks}/{thread}/schedstat") as f:
                    times[thread] = int(f.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass  # It has ended: one that serves a question to the telemetry socket.
        return times

    def busiest_thread_ns(self, since):
        """How long the busiest thread had a core since `since`, which `thread_ns` gave."""
        return max(now - since.get(thread, now) for thread, now in self.thread_ns().items())

    def end(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


class HugePages:
    """At least `mib` of free 2 MiB pages while the block runs; then as many as before."""

    def __init__(self, mib):
        self.wanted = mib // 2

    def __enter__(self):
        def read(name):
            with open(HUGE_PAGES + name) as f:
                return int(f.read())

        self.before = read("nr_hugepages")
        lacking = self.wanted - read("free_hugepages")
        if lacking > 0:
            self.write(self.before + lacking)
            if read("free_hugepages") < self.wanted:
                self.write(self.before)
                raise Missing(f"no {self.wanted * 2} MiB of huge pages to be had: free some memory, or give --no-huge")
        return self

    def __exit__(self, *_):
        self.write(self.before)

    @staticmethod
    def write(pages):
        with open(HUGE_PAGES + "nr_hugepages", "w") as f:
            f.write(str(pages))


def telemetry(prefix, command):
    """The answer of the DPDK program with that --file-prefix, as text of a JSON object."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(10)
        s.connect(f"/var/run/dpdk/{prefix}/dpdk_telemetry.v2")
        s.recv(4096)
        s.send(command.encode())
        return s.recv(65536).decode()


def play(prefix, device, pcap):
    """Has the plug-in (player.c) in that program send `pcap` into `device`, over and over, or nothing if it is None."""
    if ("playing" if pcap else "silent") not in telemetry(prefix, f"/player/play,{device},{pcap or ''}"):
        raise RuntimeError(f"{prefix} cannot play {pcap} into {device}")


def remove_runtime_dir(prefix):
    path = f"/var/run/dpdk/{prefix}"
    for name in os.listdir(path) if os.path.isdir(path) else []:
        os.unlink(os.path.join(path, name))
    if os.path.isdir(path):
        os.rmdir(path)
