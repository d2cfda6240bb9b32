"""Processes of scripts/bench and scripts/soak: starting and ending a server, and what all its processes have used."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SERVER_CORE, LOAD_CORE = "0", "1"
BOTH_CORES = "0,1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def descendants(pid):
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += descendants(int(child))
    return found


def processor_time(pids, and_of_ended=False):
    """Seconds of user and system time so far; `and_of_ended`: that of children that have ended, too."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            # Ended since it was listed: its parent has its time.
            continue
        ticks += sum(map(int, fields[11 : 15 if and_of_ended else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def private_memory(pids):
    """Octets in user space that a process shares with nobody."""
    return mapped(pids, "Private_")


def memory_of(pids):
    """Octets in user space; what processes share counts once (PSS)."""
    return mapped(pids, "Pss:")


def mapped(pids, kind):
    """Octets of the mappings of processes, of what begins with `kind` in smaps_rollup."""
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(kind):
                kib += int(line.split()[1])
    return kib * 1024


class Server:
    """A server under measurement (or the origin): its processes, and the port it answers on."""

    running = []

    def __init__(self, name, command, port, cores, directory, probe="/1k", user=None):
        """`probe`: what is asked for until it is there; None: it need only take connections."""
        self.name, self.port = name, port
        self.log = directory / "output"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", cores, *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory, start_new_session=True, **(user or {}),
            )  # fmt: skip
        Server.running.append(self)
        self.wait_until_it_answers(probe)

    def wait_until_it_answers(self, path):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if path is None:
                    socket.create_connection(("127.0.0.1", self.port), timeout=20).close()
                else:
                    self.get(path)
                return
            except OSError:
                time.sleep(0.001)
        sys.exit(f"{self.name} does not answer:\n{self.log.read_text(errors='replace')}")

    def pids(self):
        return descendants(self.process.pid)

    def processor_time(self):
        return processor_time(self.pids())

    def get(self, path):
        """Length of the content. wrk sends the same Host: it is part of what names a response in a cache."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as client:
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode())
            answer = b"".join(iter(lambda: client.recv(1 << 20), b""))
        head, _, content = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise OSError(head.decode(errors="replace"))
        return len(content)

    def wait_until_quiet(self):
        """Until it has done what it had put off, as writing a catalogue; at most ten seconds."""
        before = self.processor_time()
        for _ in range(20):
            time.sleep(0.5)
            now = self.processor_time()
            if now == before:
                return
            before = now

    def stop(self):
        if self in Server.running:
            Server.running.remove(self)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    @staticmethod
    def stop_all():
        while Server.running:
            Server.running[-1].stop()
