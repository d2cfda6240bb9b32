"""The row `idle`: octets of user space that a further idle connection costs, which has been served once.

It is the growth between the first thousand and ten thousand: what a server keeps for any number of them is not counted.
"""

import resource
import socket
import sys
import time

from benchmark.load import say
from benchmark.processes import private_memory
from benchmark.results import Figure, Line
from benchmark.servers import IDLE_CONNECTIONS, most_haproxy_connections

SERVERS = ["baton", "nginx", "haproxy"]
FIRST = 1_000


def measure(run, name):
    figures = {}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < IDLE_CONNECTIONS + 100:
        say(f"  {name}  only {hard} descriptors are allowed here (ulimit -Hn)")
        return []
    for server_name in run.takes_part(SERVERS):
        if server_name == "haproxy" and most_haproxy_connections() < IDLE_CONNECTIONS:
            say(f"  {name}  haproxy wants more descriptors than are allowed here (ulimit -Hn)")
            continue
        # A fresh one: load would leave memory behind that idle connections then reuse.
        with run.fresh(server_name) as server:
            figures[server_name] = figure(server)
        say(f"  {name}  {server_name:22} {figures[server_name].text}")
    return [Line(name, f"memory of each of {IDLE_CONNECTIONS:,} idle connections", figures)]


def figure(server):
    master, *workers = server.pids()
    if server.name == "haproxy":
        # Threads of one process.
        workers = [master]
    clients = []
    try:
        before = after_so_many(FIRST, server, clients, master, workers)
        after = after_so_many(IDLE_CONNECTIONS, server, clients, master, workers)
    finally:
        for client in clients:
            client.close()
    each = [round(max(0, now - then) / (IDLE_CONNECTIONS - FIRST)) for then, now in zip(before, after)]
    if server.name == "haproxy":
        each[0] = 0
    more = {"master": each[0], "workers": each[1]}
    return Figure(sum(each), f"{sum(each)} B (master {each[0]}, workers {each[1]})", more)


def after_so_many(count, server, clients, master, workers):
    """[of the master, of all others]"""
    while len(clients) < count:
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        client.sendall(b"GET /1k HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        clients.append(client)
        if not client.recv(1 << 16):
            sys.exit(f"{server.name} closes connections that should be idle")
    # baton's worker gives its connections back after a second, and their memory a little later.
    time.sleep(4)
    return [private_memory([master]), private_memory(workers)]
