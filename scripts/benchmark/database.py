"""A PostgreSQL server of scripts/bench's own, in the run's directory, on a Unix socket only.

It has the settings that it comes with except SETTINGS, and runs as an unprivileged user where this is root.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from benchmark.processes import LOAD_CORE, SERVER_CORE, Server, free_port, processor_time
from benchmark.servers import Place, baton

# Tables without a log are made by baton; what vacuuming costs is taken where something is stored, and nowhere by chance.
SETTINGS = {"listen_addresses": "", "shared_buffers": "1GB", "autovacuum": "off"}


def binary(name):
    """None: it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return found[-1] if found else shutil.which(name)


def install(as_root):
    """The Debian package, without a server of the system's own, as scripts/check does."""
    get = [*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    subprocess.run([*get, "postgresql-common"], check=True)
    settings = Path("/etc/postgresql-common/createcluster.conf")
    if "\ncreate_main_cluster = false" not in "\n" + settings.read_text():
        line = "create_main_cluster = false\n"
        subprocess.run([*as_root, "tee", "-a", settings], input=line, text=True, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([*get, "postgresql"], check=True)


def unprivileged():
    """Whom it runs as, for Popen."""
    if os.getuid() != 0:
        return {}
    for name in ["postgres", "nobody"]:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    sys.exit("PostgreSQL does not run as root: a user named postgres, or nobody, is needed")


class Database(Server):
    def __init__(self, directory):
        # That user has to get there.
        directory.chmod(0o711)
        self.place, user = directory / "postgres", unprivileged()
        self.place.mkdir()
        if user:
            os.chown(self.place, user["user"], user["group"])
        made = subprocess.run(
            [binary("initdb"), "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "baton", "-D", self.place / "data"],
            capture_output=True, text=True, cwd="/", check=False, **user,
        )  # fmt: skip
        if made.returncode != 0:
            sys.exit(f"initdb: {made.stderr}")
        command = [binary("postgres"), "-D", self.place / "data", "-k", self.place]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        super().__init__("PostgreSQL", command, 5432, SERVER_CORE, self.place, user=user)

    def wait_until_it_answers(self, _):
        deadline = time.monotonic() + 60
        while self.try_sql("SELECT 1").returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"PostgreSQL does not answer:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def processor_time(self):
        """With that of sessions that have ended. One that ends just now is looked for again."""
        while True:
            try:
                return processor_time(self.pids(), and_of_ended=True)
            except FileNotFoundError:
                continue

    def url(self, schema):
        return f"postgres://baton@{quote(str(self.place), safe='')}/postgres?options=-csearch_path%3D{schema}"

    def try_sql(self, text, schema="public"):
        return subprocess.run(
            ["taskset", "-c", LOAD_CORE, binary("psql"), "-XqAtw", "-v", "ON_ERROR_STOP=1", "-h", self.place,
             "-U", "baton", "-d", "postgres", "-c", text],
            capture_output=True, text=True, env={**os.environ, "PGOPTIONS": f"-csearch_path={schema}"}, check=False,
        )  # fmt: skip

    def sql(self, text, schema="public"):
        done = self.try_sql(text, schema)
        if done.returncode != 0:
            sys.exit(f"PostgreSQL: {done.stderr}")
        return done.stdout.strip()

    def start_baton(self, name, run, schema, flags=(), binary="baton"):
        """Over tables of that schema."""
        self.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        place = run.directory / f"{name.replace(',', '').replace(' ', '-')}-{schema}"
        place.mkdir()
        port = free_port()
        command = baton(Place(run.binaries, place, port, run.origin.port), flags, binary, self.url(schema))
        return Server(name, command, port, SERVER_CORE, place)

    def stop(self):
        # Without writing to its files what has not been written: they go.
        self.process.send_signal(signal.SIGQUIT)
        super().stop()
