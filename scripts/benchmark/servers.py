"""The servers that scripts/bench compares: how each is started. Nothing is measured here.

Each has a port of its own on 127.0.0.1 and a folder for its files, and runs as it would in service: caches on, limits
out of the way, and for each size the way of sending that costs it least.
"""

import os
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmark.processes import LOAD_CORE, SERVER_CORE, Server, free_port

IDLE_CONNECTIONS = 10_000


@dataclass
class Place:
    """Where a server runs, and how large it is."""

    binaries: dict
    directory: Path
    port: int
    # The port that it fetches from.
    origin: int = 0
    workers: int = 1


def bare(place):
    return [place.binaries["bare"], f"127.0.0.1:{place.port}"]


# === baton


def baton(place, flags=(), binary="baton", cache=None):
    return [
        place.binaries[binary], "reverse", "--to", f"http://127.0.0.1:{place.origin}", "--listen", f"127.0.0.1:{place.port}",
        "--workers", place.workers, "--log-dir", place.directory / "logs",
        "--cache", cache or f"dir:{place.directory / 'cache'}", *flags,
    ]  # fmt: skip


def baton_without_memory(place):
    return baton(place, ["--set", "cache.memory=0"])


def baton_with_much_memory(place):
    """For a million small objects."""
    return baton(place, ["--set", "cache.memory=8GiB"])


def baton_for_many(place, flags=()):
    """Room for ten thousand requests at once in one worker, where the defaults would answer some with 503."""
    return baton(place, ["--set", "worker.max_active=10000", "--set", "queue.capacity=20000", *flags])


def baton_for_many_without_memory(place):
    return baton_for_many(place, ["--set", "cache.memory=0"])


def baton_before(place):
    """Another build, given by --against; one from before the disk store knows memory only, its default."""
    command = baton(place, binary="before")
    known = subprocess.run([place.binaries["before"], "reverse", "--help"], stdout=subprocess.PIPE, text=True, check=False)
    return command if "dir:PATH" in known.stdout else command[: command.index("--cache")]


def baton_forward(place):
    """Lets tunnels through to the origin, and nowhere else."""
    return [
        place.binaries["baton"], "forward", "--listen", f"127.0.0.1:{place.port}", "--workers", place.workers,
        "--log-dir", place.directory / "logs", "--cache", f"dir:{place.directory / 'cache'}",
        "--set", f"access.connect_ports=[{place.origin}]",
        "--set", f'access.destinations_allow=["127.0.0.1:{place.origin}"]',
    ]  # fmt: skip


# === nginx


def nginx(place, log="off", more="", connections=IDLE_CONNECTIONS + 1000, names="256m", files=10_000):
    """`more`: directives for the server. `names`: room for those of what is cached, some 8,000 a megabyte. `files`: that are kept open."""
    user = "user root;" if os.getuid() == 0 else ""
    temporary = "".join(f"{kind}_temp_path temp; " for kind in ["client_body", "fastcgi", "uwsgi", "scgi", "proxy"])
    # Behind one deferred socket, one of several workers would take nearly all connections.
    listening = "deferred" if place.workers == 1 else "reuseport"
    (place.directory / "nginx.conf").write_text(
        f"""{user}
daemon off; worker_processes {place.workers}; worker_rlimit_nofile {connections + 1000};
pid nginx.pid; error_log error.log;
events {{ worker_connections {connections}; }}
http {{
  {temporary}
  keepalive_requests 1000000000; keepalive_timeout 300s; access_log {log};
  open_file_cache max={files} inactive=300s; open_file_cache_valid 300s;
  proxy_cache_path cache levels=1:2 keys_zone=kept:{names} max_size=64g inactive=24h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{place.origin}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096 {listening};
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache kept; proxy_max_temp_file_size 0; {more}
    # For small files this costs less than sendfile, and does not hold pipelined answers back.
    location / {{ proxy_pass http://origin; sendfile off; }}
    proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;
    # tcp_nopush would hold the end of what fits into the socket at once back, for a delayed acknowledgement.
    location ~ ^/(64k|256k) {{ proxy_pass http://origin; sendfile on; }}
    location ~ ^/(1m|100m) {{ proxy_pass http://origin; sendfile on; tcp_nopush on; }}
  }}
}}
"""
    )
    return ["nginx", "-p", place.directory, "-c", "nginx.conf", "-e", "error.log"]


def nginx_with_log(place):
    return nginx(place, log="access.log")


def nginx_for_many(place):
    """Ten thousand connections to clients, and as many to the origin."""
    return nginx(place, connections=2 * IDLE_CONNECTIONS + 1000)


def nginx_in_little_room(place):
    """As many connections as baton takes and files as it keeps open by default, and room for 200,000 names: all of them cost memory."""
    return nginx(place, connections=4096, names="25m", files=1024)


def nginx_with_lock(place):
    return nginx(place, more="proxy_cache_lock on;")


def nginx_that_tells(place):
    """Each answer names the worker that it is from."""
    return nginx(place, more="add_header X-Worker $pid;")


# === haproxy


def most_haproxy_connections():
    """It counts two descriptors a connection, and refuses to start when they might not be there."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(IDLE_CONNECTIONS + 1000, (hard - 200) // 2)


def haproxy(place):
    return haproxy_as(
        place,
        "http",
        "defer-accept",
        """
cache kept
  total-max-size 256
  max-object-size 4194304
  max-age 3600""",
        """
  http-request cache-use kept
  http-response cache-store kept""",
        """
  http-reuse always""",
    )


def haproxy_tcp(place):
    return haproxy_as(place, "tcp", "")


def haproxy_as(place, mode, listening, cache="", frontend="", backend=""):
    (place.directory / "haproxy.cfg").write_text(
        f"""
global
  nbthread {place.workers}
  maxconn {most_haproxy_connections()}
defaults
  mode {mode}
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s{cache}
frontend clients
  bind 127.0.0.1:{place.port} backlog 4096 {listening}{frontend}
  default_backend origin
backend origin{backend}
  server origin 127.0.0.1:{place.origin}
"""
    )
    return ["haproxy", "-db", "-f", place.directory / "haproxy.cfg"]


# === varnish and Squid


def varnish(place):
    (place.directory / "default.vcl").write_text(
        f'vcl 4.1;\nbackend default {{ .host = "127.0.0.1"; .port = "{place.origin}"; }}\n'
    )
    return [
        "varnishd", "-F", "-j", "none", "-n", place.directory / "work", "-f", place.directory / "default.vcl",
        "-a", f"127.0.0.1:{place.port}", "-s", "malloc,512m", "-p", "thread_pool_min=600",
    ]  # fmt: skip


def squid(place):
    """In front of the origin, with its asynchronous file store; as root it becomes a user of its own, who has to get there."""
    directory, user = place.directory, ""
    if os.getuid() == 0:
        for above in directory.parents:
            if above.stat().st_mode & 0o001:
                break
            above.chmod(0o711)
        directory.chmod(0o777)
        user = "cache_effective_user proxy\ncache_effective_group proxy"
    (directory / "squid.conf").write_text(
        f"""{user}
http_port 127.0.0.1:{place.port} accel defaultsite=127.0.0.1
cache_peer 127.0.0.1 parent {place.origin} 0 no-query no-digest originserver name=origin
http_access allow all
cache_dir aufs {directory}/cache 65536 64 256
cache_mem 256 MB
maximum_object_size 1 GB
# The origin sends no Date, without which Squid takes nothing for fresh.
refresh_pattern . 600 0% 600 override-expire
access_log none
cache_log {directory}/cache.log
cache_store_log none
pid_filename {directory}/squid.pid
coredump_dir {directory}
shutdown_lifetime 1 second
pinger_enable off
netdb_filename none
visible_hostname bench
"""
    )
    if not (directory / "cache").exists():
        make = ["squid", "-N", "-z", "-f", directory / "squid.conf"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return ["squid", "-N", "-f", directory / "squid.conf"]


# === starting


COMMANDS = {
    "baton": baton,
    "baton, no memory tier": baton_without_memory,
    "baton, much memory": baton_with_much_memory,
    "baton, many": baton_for_many,
    "baton, many, no memory tier": baton_for_many_without_memory,
    "baton, forward": baton_forward,
    "before": baton_before,
    "bare": bare,
    "nginx": nginx,
    "nginx, log": nginx_with_log,
    "nginx, many": nginx_for_many,
    "nginx, little": nginx_in_little_room,
    "nginx, lock": nginx_with_lock,
    "nginx, telling": nginx_that_tells,
    "haproxy": haproxy,
    "haproxy, tcp": haproxy_tcp,
    "varnish": varnish,
    "squid": squid,
}


def start(name, binaries, directory, origin=0, port=None, probe="/1k", workers=1, cores=SERVER_CORE):
    """Starts one of COMMANDS with its files in a folder of `directory` (one that is there is used again)."""
    place = directory / name.replace(",", "").replace(" ", "-")
    place.mkdir(exist_ok=True)
    port = port or free_port()
    command = COMMANDS[name](Place(binaries, place, port, origin, workers))
    return Server(name, command, port, cores, place, probe)


def start_origin(binaries, directory):
    place = directory / "origin"
    place.mkdir(exist_ok=True)
    port = free_port()
    return Server("origin", bare(Place(binaries, place, port)), port, LOAD_CORE, place)
