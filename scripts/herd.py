"""The row `herd` of scripts/bench: many clients ask at once for one object that is not in the cache and takes its time.

An origin server of its own sends 10 MiB in two seconds and counts what it is asked for. The clients are one loop that takes
octets out of their sockets without copying them (MSG_TRUNC), so that the servers are what is measured. First one client alone,
then all of them, each time for a new URL: how often the origin was asked, when the first and the last octet came.
"""

import os
import selectors
import shutil
import socket
import statistics
import threading
import time
from dataclasses import dataclass

from servers import LOAD_CORE, SERVER_CORE, Server, baton, free_port, nginx

CLIENTS, WORKERS = 500, 4
LENGTH, STEPS, TAKES = 10 << 20, 40, 2.0
PATIENCE = 30


@dataclass
class Herd:
    asked: float
    # Seconds from the request on, over all clients.
    first: list
    last: list
    # The last octet of one client alone.
    alone: float
    cut: int


class SlowOrigin:
    """Answers any GET with LENGTH octets, a STEPS-th of them every TAKES / STEPS seconds."""

    def __init__(self):
        self.asked = {}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client):
        buffered = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffered:
                    more = client.recv(65536)
                    if not more:
                        return
                    buffered += more
                head, _, buffered = buffered.partition(b"\r\n\r\n")
                self.answer(client, head.split(b" ")[1].decode())
        except OSError:
            client.close()

    def answer(self, client, path):
        if path == "/1k":
            client.sendall(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 1\r\n\r\nx")
            return
        self.asked[path] = self.asked.get(path, 0) + 1
        head = f"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"a\"\r\nContent-Length: {LENGTH}\r\n\r\n"
        client.sendall(head.encode())
        begin = time.monotonic()
        for step in range(STEPS):
            client.sendall(b"x" * (LENGTH // STEPS))
            time.sleep(max(0, begin + (step + 1) * TAKES / STEPS - time.monotonic()))


# === the servers


def varnish(directory, port, origin):
    (directory / "default.vcl").write_text(
        f'vcl 4.1;\nbackend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}\n'
    )
    return [
        "varnishd", "-F", "-j", "none", "-n", directory / "work", "-f", directory / "default.vcl",
        "-a", f"127.0.0.1:{port}", "-s", "malloc,512m", "-p", "thread_pool_min=600",
    ]  # fmt: skip


def nginx_with_lock(binaries, directory, port, origin):
    command = nginx(binaries, directory, port, origin)
    config = directory / "nginx.conf"
    text = config.read_text().replace("worker_processes 1", f"worker_processes {WORKERS}")
    text = text.replace("proxy_cache kept;", "proxy_cache kept; proxy_cache_lock on;")
    # One worker must not take all connections, as it would behind `deferred` without load.
    config.write_text(text.replace(" deferred;", " reuseport;"))
    return command


def commands(binaries, directory, port, origin):
    ours = baton(binaries, directory, port, origin)
    ours[ours.index("--workers") + 1] = str(WORKERS)
    return {
        "baton": lambda: ours,
        "nginx, lock": lambda: nginx_with_lock(binaries, directory, port, origin),
        "varnish": lambda: varnish(directory, port, origin),
    }


NAMES = ["baton", "nginx, lock", "varnish"]


# === the clients


def ask(port, path, count):
    """(first octet, last octet) of each client in seconds from its request on; none: it did not come."""
    clients = []
    poll = selectors.DefaultSelector()
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        client.setblocking(False)
        clients.append(client)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    state = {}
    for client in clients:
        client.send(request)
        # When it asked, when its first octet came, how much is to come.
        state[client] = [time.monotonic(), None, None]
        poll.register(client, selectors.EVENT_READ)
    room, times, deadline = bytearray(1 << 20), [], time.monotonic() + PATIENCE
    open_clients = count
    while open_clients and time.monotonic() < deadline:
        for key, _ in poll.select(1):
            client = key.fileobj
            asked, first, left = state[client]
            try:
                if left is None:
                    # Enough for a head, and no more than comes.
                    got = client.recv(4096)
                    end = got.find(b"\r\n\r\n")
                    length = len(got)
                    if end >= 0:
                        left = LENGTH - (length - end - 4)
                else:
                    length = client.recv_into(room, len(room), socket.MSG_TRUNC)
                    left -= length
            except (ConnectionError, BlockingIOError):
                length = 0
            now = time.monotonic()
            state[client] = [asked, first or now - asked, left]
            if length == 0 or left == 0:
                times.append((first or now - asked, now - asked) if left == 0 else None)
                poll.unregister(client)
                open_clients -= 1
    for client in clients:
        client.close()
    return times + [None] * open_clients


def measure(binaries, rounds, directory, say):
    """{server: Herd}: medians over rounds of what each round has, worst of all rounds behind."""
    os.sched_setaffinity(0, {LOAD_CORE})
    origin = SlowOrigin()
    herds = {}
    for name in NAMES:
        if name == "varnish" and not shutil.which("varnishd"):
            say("  herd  varnish is missing")
            continue
        place = directory / f"herd-{name.replace(', ', '-')}"
        place.mkdir()
        port = free_port()
        command = commands(binaries, place, port, origin.port)[name]()
        server = Server(name, command, port, SERVER_CORE, place)
        herd = Herd(0, [], [], 0, 0)
        alone = []
        for number in range(rounds):
            path = f"/herd/{name[0]}{number}"
            alone += [time[1] for time in ask(port, path + "/alone", 1) if time]
            times = ask(port, path, CLIENTS)
            herd.asked = max(herd.asked, origin.asked.get(path, 0))
            herd.cut += times.count(None)
            herd.first += [time[0] for time in times if time]
            herd.last += [time[1] for time in times if time]
            say(f"  herd {number + 1}/{rounds}  {name:22} asked {origin.asked.get(path, 0)} times")
        herd.alone = statistics.median(alone)
        herds[name] = herd
        server.stop()
    return herds


def table(herds):
    """As Markdown."""
    lines = [
        f"| herd: {CLIENTS} clients, {WORKERS} workers, 10 MiB in 2 s | origin requests | first octet, median | worst |"
        " last octet, median | worst | one client alone | cut |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, herd in herds.items():
        cells = [f"{seconds:.3f} s" for values in [herd.first, herd.last]
                 for seconds in [statistics.median(values), max(values)]] if herd.first else ["-"] * 4  # fmt: skip
        lines.append(f"| {name} | {herd.asked} | {' | '.join(cells)} | {herd.alone:.3f} s | {herd.cut} |")
    return "\n".join(lines)
