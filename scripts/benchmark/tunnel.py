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
    costs, rates = {}, {}
    for server_name in run.takes_part(SERVERS):
        costs[server_name], rates[server_name] = [], []
        # There is no response until there is a tunnel.
        with run.fresh(server_name, probe=None) as server:
            for number in range(run.rounds):
                through = f"127.0.0.1:{run.origin.port}" if server_name.startswith("baton") else None
                streams = [Stream(server.port, PATH, through) for _ in range(CONNECTIONS)]
                before = server.processor_time()
                octets = drain(streams, run.seconds)
                used = server.processor_time() - before
                costs[server_name].append(used / octets * 1e9)
                rates[server_name].append(octets / run.seconds / 1e9)
                say(f"  {name} {number + 1}/{run.rounds}  {server_name:22} {used / octets * 1e9:.3f} s/GB {octets / run.seconds / 1e9:.2f} GB/s")
    figures = {
        column(server): Figure(
            statistics.median(values), f"{statistics.median(values):.3f} s/GB ({statistics.median(rates[server]):.2f} GB/s)"
        )
        for server, values in costs.items()
    }
    return [Line(name, "tunnel, 100 MiB", figures)]
