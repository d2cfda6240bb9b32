"""What a run needs of the machine, and what is said of it under a table."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmark import database
from benchmark.load import say

ROOT = Path(__file__).resolve().parents[2]
# Debian's, by what is looked for.
PACKAGES = {"wrk": "wrk", "nginx": "nginx-light", "haproxy": "haproxy", "varnishd": "varnish", "squid": "squid"}
POLICY = Path("/usr/sbin/policy-rc.d")


def search_path():
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


# === packages


def install_missing(wanted, programs, with_database):
    """`programs`: of PACKAGES, those that this run starts."""
    missing = [PACKAGES[program] for program in programs if not shutil.which(program, path=search_path())]
    with_database = with_database and not database.binary("initdb")
    if not missing and not with_database:
        return
    if not wanted:
        sys.exit(f"missing: {', '.join(missing + ['postgresql'] * with_database)} (install them, or run scripts/bench --install)")
    as_root = [] if os.getuid() == 0 else ["sudo"]
    run = lambda *words, **more: subprocess.run([*as_root, *words], check=True, **more)  # noqa: E731
    # Packages start what they bring, which would take ports and time: nothing may be started meanwhile.
    has_policy = POLICY.exists()
    if not has_policy:
        run("tee", POLICY, input="#!/bin/sh\nexit 101\n", text=True, stdout=subprocess.DEVNULL)
        run("chmod", "755", POLICY)
    try:
        run("apt-get", "update", "-qq")
        if with_database:
            database.install(as_root)
        if missing:
            run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, stdout=subprocess.DEVNULL)
    finally:
        if not has_policy:
            run("rm", "-f", POLICY)


# === programs


def build(wanted):
    """{name: path} of release builds. `wanted`: as cargo names them, "--bench=bare"."""
    say("building")
    found = {}
    for kind in wanted:
        done = subprocess.run(
            ["cargo", "build", "--release", "--locked", kind, "--message-format=json-render-diagnostics"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            message = json.loads(line)
            if message.get("reason") == "compiler-artifact" and message.get("executable"):
                found[message["target"]["name"]] = message["executable"]
    return found


# === what is said of it


def output_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout + done.stderr).strip().splitlines()[0] if done.stdout + done.stderr else ""


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions(arguments, programs):
    commit = output_of(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    binary = arguments.binary
    ours = f"{output_of([binary, '--version'])} (another build)" if binary else f"baton {commit}"
    told = {
        "nginx": output_of(["nginx", "-v"]).replace("nginx version: nginx/", "nginx "),
        "haproxy": re.sub(r" 20.*", "", output_of(["haproxy", "-v"])).replace("HAProxy version", "haproxy"),
        "varnishd": re.sub(r".*\(varnish-([^ ]*).*", r"varnish \1", output_of(["varnishd", "-V"])),
        "squid": output_of(["squid", "-v"]).replace("Squid Cache: Version", "squid"),
        "wrk": re.sub(r"wrk (\S+).*", r"wrk \1", output_of(["wrk", "-v"])),
    }
    file_system = output_of(["findmnt", "-n", "-o", "FSTYPE", "--target", tempfile.gettempdir()])
    if arguments.own_disks:
        file_system += " (a new one for each measurement of storing)"
    return (
        f"{processor()}, {os.cpu_count()} cores, Linux {platform.release()}, {file_system}, {arguments.congestion_control}; {ours}; "
        + "; ".join(told[program] for program in programs)
        + f"; {output_of(['rustc', '--version']).partition(' (')[0]}"
    )
