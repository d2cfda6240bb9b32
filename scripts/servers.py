"""The servers that scripts/bench compares: how each is started, and what its processes have used.

Every server has one worker process, a port of its own on 127.0.0.1 and a folder for its files. Nothing is measured
here; scripts/soak uses the part about processes.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SERVER_CORE, LOAD_CORE = 0, 1
IDLE_CONNECTIONS = 10_000


# === processes


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
    kib = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_"):
                kib += int(line.split()[1])
    return kib * 1024


class Server:
    """A server under measurement (or the origin): its processes, and the port it answers on."""

    running = []

    def __init__(self, name, command, port, core, directory, probe="/1k", user=None):
        self.name, self.port = name, port
        self.log = directory / "output"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *map(str, command)],
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


# === the servers: each function gives the command that starts one


def bare(binaries, directory, port, origin):
    return [binaries["bare"], f"127.0.0.1:{port}"]


def baton(binaries, directory, port, origin, flags=(), binary="baton", cache=None):
    return [
        binaries[binary], "reverse", "--to", f"http://127.0.0.1:{origin}", "--listen", f"127.0.0.1:{port}",
        "--workers", "1", "--log-dir", directory / "logs", "--cache", cache or f"dir:{directory / 'cache'}", *flags,
    ]  # fmt: skip


def baton_without_memory(binaries, directory, port, origin):
    return baton(binaries, directory, port, origin, ["--set", "cache.memory=0"])


def baton_before(binaries, directory, port, origin):
    """Another build, given by --against; one from before the disk store knows memory only, its default."""
    command = baton(binaries, directory, port, origin, binary="before")
    known = subprocess.run([binaries["before"], "reverse", "--help"], stdout=subprocess.PIPE, text=True, check=False)
    return command if "dir:PATH" in known.stdout else command[: command.index("--cache")]


def nginx(binaries, directory, port, origin, log="off"):
    user = "user root;" if os.getuid() == 0 else ""
    temporary = "".join(f"{kind}_temp_path temp; " for kind in ["client_body", "fastcgi", "uwsgi", "scgi", "proxy"])
    (directory / "nginx.conf").write_text(
        f"""{user}
daemon off; worker_processes 1; worker_rlimit_nofile {IDLE_CONNECTIONS + 2000};
pid nginx.pid; error_log error.log;
events {{ worker_connections {IDLE_CONNECTIONS + 1000}; }}
http {{
  {temporary}
  keepalive_requests 1000000000; keepalive_timeout 300s; access_log {log};
  open_file_cache max=10000 inactive=300s; open_file_cache_valid 300s;
  proxy_cache_path cache levels=1:2 keys_zone=kept:128m max_size=64g inactive=24h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 deferred;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_cache kept; proxy_max_temp_file_size 0;
    # For small files this costs less than sendfile, and does not hold pipelined answers back.
    location / {{ proxy_pass http://origin; sendfile off; }}
    proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_busy_buffers_size 64k;
    # tcp_nopush would hold the end of what fits into the socket at once back, for a delayed acknowledgement.
    location /64k {{ proxy_pass http://origin; sendfile on; }}
    location ~ ^/(1m|100m) {{ proxy_pass http://origin; sendfile on; tcp_nopush on; }}
  }}
}}
"""
    )
    return ["nginx", "-p", directory, "-c", "nginx.conf", "-e", "error.log"]


def nginx_with_log(binaries, directory, port, origin):
    return nginx(binaries, directory, port, origin, log="access.log")


def most_haproxy_connections():
    """It counts two descriptors a connection, and refuses to start when they might not be there."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(IDLE_CONNECTIONS + 1000, (hard - 200) // 2)


def haproxy(binaries, directory, port, origin):
    (directory / "haproxy.cfg").write_text(
        f"""
global
  nbthread 1
  maxconn {most_haproxy_connections()}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 60s
  timeout http-keep-alive 300s
cache kept
  total-max-size 256
  max-object-size 4194304
  max-age 3600
frontend clients
  bind 127.0.0.1:{port} backlog 4096 defer-accept
  http-request cache-use kept
  http-response cache-store kept
  default_backend origin
backend origin
  http-reuse always
  server origin 127.0.0.1:{origin}
"""
    )
    return ["haproxy", "-db", "-f", directory / "haproxy.cfg"]


COMMANDS = {
    "bare": bare,
    "baton": baton,
    "baton, no memory tier": baton_without_memory,
    "before": baton_before,
    "nginx, no log": nginx,
    "nginx, log": nginx_with_log,
    "haproxy": haproxy,
}


def start(name, binaries, directory, origin=0, port=None, probe="/1k"):
    """Starts one of COMMANDS with its files in a folder of `directory` (one that is there is used again)."""
    place = directory / name.replace(",", "").replace(" ", "-")
    place.mkdir(exist_ok=True)
    port = port or free_port()
    command = COMMANDS[name](binaries, place, port, origin)
    return Server(name, command, port, SERVER_CORE, place, probe)


def start_origin(binaries, directory):
    place = directory / "origin"
    place.mkdir(exist_ok=True)
    port = free_port()
    return Server("origin", bare(binaries, place, port, 0), port, LOAD_CORE, place)
