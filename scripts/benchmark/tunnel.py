"""The row `tunnel`: 100 MiB again and again through CONNECT, beside haproxy, which in tcp mode leads each connection to the
same origin without being asked. Only octets are counted.
"""

import statistics

from benchmark.load import say
from benchmark.results import Figure, Line, column
from benchmark.streams import Stream, drain

PATH, CONNECTIONS = "/100m", 4
SERVERS = ["baton, forward", "haproxy, tcp"]


def measure(run, name):
    samples = {server_name: [] for server_name in run.takes_part(SERVERS)}
    for number in range(run.rounds):
        for server_name, values in samples.items():
            # There is no response until there is a tunnel.
            with run.fresh(server_name, probe=None) as server:
                values.append(measure_once(run, server))
            say(f"  {name} {number + 1}/{run.rounds}  {server_name:22} {text(*values[-1])}")
    figures = {}
    for server_name, values in samples.items():
        cost, rate = (statistics.median(each) for each in zip(*values))
        figures[column(server_name)] = Figure(cost, text(cost, rate))
    return [Line(name, "tunnel, 100 MiB", figures)]


def measure_once(run, server):
    """(seconds of processor time for a gigabyte, gigabytes a second)"""
    through = f"127.0.0.1:{run.origin.port}" if server.name.startswith("baton") else None
    streams = [Stream(server.port, PATH, through) for _ in range(CONNECTIONS)]
    before = server.processor_time()
    gigabytes = drain(streams, run.seconds) / 1e9
    return (server.processor_time() - before) / gigabytes, gigabytes / run.seconds


def text(cost, rate):
    return f"{cost:.3f} s/GB ({rate:.2f} GB/s)"
