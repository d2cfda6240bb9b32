"""One run of scripts/bench: how long each measurement takes, who takes part, and where everything is."""

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.disk import Disks
from benchmark.processes import SERVER_CORE, Server
from benchmark.servers import start, start_origin


@dataclass
class Run:
    binaries: dict
    # Gone at the end, with all that servers have stored.
    directory: Path
    rounds: int
    seconds: int
    # Kinds of servers that take part.
    kinds: list
    # Everything there is, at its full size; or as little as shows something.
    is_full: bool = False
    is_quick: bool = False
    origin: Server = None
    disks: Disks = None

    def __post_init__(self):
        self.disks = Disks(self.directory)

    def start_origin(self):
        self.origin = start_origin(self.binaries, self.directory)

    def takes_part(self, names):
        return [name for name in names if name.partition(",")[0] in self.kinds]

    @contextmanager
    def together(self, names, workers=1, cores=SERVER_CORE):
        """Servers that take turns; what one has stored in an earlier row is there again."""
        place = self.directory / f"{workers}-workers"
        place.mkdir(exist_ok=True)
        servers = [self.start(name, place, workers=workers, cores=cores) for name in self.takes_part(names)]
        try:
            yield servers
        finally:
            for server in servers:
                server.stop()

    @contextmanager
    def fresh(self, name, **more):
        """A server on a disk of its own."""
        with self.disks.fresh() as place:
            server = self.start(name, place, **more)
            try:
                yield server
            finally:
                server.stop()

    def start(self, name, place, **more):
        return start(name, self.binaries, place, self.origin.port, **more)

    def new_directory(self):
        return Path(tempfile.mkdtemp(dir=self.directory))

