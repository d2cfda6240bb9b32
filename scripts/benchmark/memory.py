"""The row `memory`: what a server and all its processes hold in user space, idle and after 100,000 distinct requests.

Memory that processes share counts once (PSS). Every response has been stored: 1 KiB each, in a directory. nginx keeps
nothing but names in memory, so baton is measured with no memory tier, too, and that is what is compared; with its default
of 256 MiB it holds the bodies besides.
"""

from benchmark.load import say
from benchmark.processes import memory_of
from benchmark.results import Figure, Line, column, octets
from benchmark.starting import fill

REQUESTS = 100_000
SERVERS = ["baton, no memory tier", "nginx, little"]
HOT = "baton"


def measure(run, name):
    idle, after = {}, {}
    for server_name in [*run.takes_part(SERVERS), *run.takes_part([HOT])]:
        with run.fresh(server_name) as server:
            idle[server_name] = memory_of(server.pids())
            fill(run, name, server, REQUESTS)
            server.wait_until_quiet()
            after[server_name] = memory_of(server.pids())
        say(f"  {name}  {server_name:22} {octets(idle[server_name])} idle, {octets(after[server_name])} after")
    what = f"memory after {REQUESTS:,} distinct requests"
    return [
        line("memory-idle", "memory idle, no memory tier", idle, SERVERS),
        line("memory-after", f"{what}, no memory tier", after, SERVERS),
        line("memory-hot", f"{what}, memory tier of 256 MiB", after, [HOT, "nginx, little"]),
    ]


def line(name, label, held, servers):
    return Line(name, label, {
        column(server): Figure(held[server], octets(held[server])) for server in servers if server in held
    })  # fmt: skip
