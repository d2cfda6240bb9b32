"""The row `skew`: light requests (1 KiB) beside twenty connections that ask for 256 KiB from files without a pause, two workers each.

A connection of nginx stays with the worker that has accepted it. So the twenty may meet in one worker, and whatever else
is there waits behind them while the other worker is idle. That chance is taken here: connections are opened until
twenty are with one worker, as each answer of nginx's tells who it is from. baton chooses the worker itself, and gets
the twenty as they come.

Both workers may use both cores; so may nobody else but the load, on one of them.
"""

import os
import re
import statistics
import threading

from benchmark.load import say
from benchmark.pace import QUANTITIES, pace, shown
from benchmark.processes import BOTH_CORES
from benchmark.results import Figure, Line, column
from benchmark.streams import HEAD_ENDS, Stream, drain

SERVERS = ["baton", "nginx, telling"]
HEAVY, LIGHT = 20, 20
PATH = "/256k"
# Of the light requests, a second: far from what anything here can do.
RATE = 500


def measure(run, name):
    rounds = {}
    with run.together(SERVERS, workers=2, cores=BOTH_CORES) as servers:
        for server in servers:
            for path in ["/1k", PATH] * 3:
                server.get(path)
            rounds[server.name] = []
        for number in range(run.rounds):
            for server in servers:
                times, octets = measure_once(run, server)
                rounds[server.name].append(times)
                heavy = octets / run.seconds / (256 << 10)
                say(f"  {name} {number + 1}/{run.rounds}  {server.name:22} {shown(times)}, beside {heavy:.0f} heavy ones a second")
    label = f"1 KiB beside {HEAVY} × 256 KiB, two workers, p50 / p99 / p99.9"
    return [Line(name, label, {column(server): figure(times) for server, times in rounds.items()})]


def measure_once(run, server):
    streams = in_one_worker(server.port) if server.name.startswith("nginx") else [Stream(server.port, PATH) for _ in range(HEAVY)]
    over, octets = threading.Event(), []
    heavy = threading.Thread(target=lambda: octets.append(drain_behind(streams, over)))
    heavy.start()
    try:
        times = pace(run, server, "/1k", LIGHT, RATE, run.seconds)
    finally:
        over.set()
        heavy.join()
    return times, octets[0]


def drain_behind(streams, over):
    """Whatever else wants the core goes first: it is not this client that light requests should wait for."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    return drain(streams, until=over)


def in_one_worker(port):
    """Connections to whichever worker has HEAVY of them first."""
    by_worker = {}
    while True:
        stream = Stream(port, PATH)
        mates = by_worker.setdefault(worker_of(stream.socket, port), [])
        mates.append(stream)
        if len(mates) == HEAVY:
            break
    for other in by_worker.values():
        if other is not mates:
            for stream in other:
                stream.socket.close()
    return mates


def worker_of(connection, port):
    connection.sendall(f"GET /1k HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    answer = b""
    while len(answer.partition(HEAD_ENDS)[2]) < 1024:
        more = connection.recv(1 << 16)
        if not more:
            raise OSError("the server has closed a connection")
        answer += more
    return re.search(rb"X-Worker: (\d+)", answer).group(1)


def figure(rounds):
    times = {name: statistics.median(times[name] for times in rounds) for name in QUANTITIES}
    return Figure(times["p99"], shown(times), times)
