"""The row `herd` of scripts/bench: many clients ask at once for one object that is not in the cache and takes its time.

An origin server of its own sends 10 MiB in two seconds and counts what it is asked for. The clients are one loop that takes
octets out of their sockets without copying them (MSG_TRUNC), so that the servers are what is measured. First one client alone,
then all of them, each time for a new URL: how often the origin was asked, when the first and the last octet came.
"""

import selectors
import socket
import statistics
import threading
import time

from benchmark.load import say
from benchmark.results import Figure, Line, column
from benchmark.servers import start

CLIENTS, WORKERS = 500, 4
LENGTH, STEPS, TAKES = 10 << 20, 40, 2.0
PATIENCE = 30
SERVERS = ["baton", "nginx, lock", "varnish"]


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


# === the row


def measure(run, name):
    """What is shown: most origin requests of any round; over all rounds and clients, when octets came."""
    origin = SlowOrigin()
    figures = {}
    for server_name in run.takes_part(SERVERS):
        place = run.new_directory()
        server = start(server_name, run.binaries, place, origin.port, workers=WORKERS)
        alone, herd, asked = [], [], 0
        for number in range(run.rounds):
            path = f"/herd/{server_name[0]}{number}"
            alone += ask(server.port, path + "/alone", 1)
            herd += ask(server.port, path, CLIENTS)
            asked = max(asked, origin.asked.get(path, 0))
            say(f"  {name} {number + 1}/{run.rounds}  {server_name:22} asked {origin.asked.get(path, 0)} times")
        server.stop()
        figures[column(server_name)] = figure(alone, herd, asked)
    return [Line(name, f"{CLIENTS} clients at once, 10 MiB in 2 s, {WORKERS} workers", figures)]


def figure(alone, herd, asked):
    came = [times for times in herd if times]
    first, last = (max(times[which] for times in came) for which in [0, 1])
    one = statistics.median(times[1] for times in alone if times)
    cut = len(herd) - len(came)
    text = f"asked {asked}, first octet {first:.2f} s, last {last:.2f} s (alone {one:.2f} s)" + (f", {cut} cut off" if cut else "")
    return Figure(last, text, {"origin requests": asked, "last : alone": last / one})
