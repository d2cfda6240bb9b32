"""A file system made for one server and one measurement, as what storing costs depends on what a file system has been through.

ext4 passes over every inode that was freed within the last five minutes when it looks for one (`recently_deleted`): after a
mass of files has been removed, by a test or by the round before, making a file costs half as much again. And each
server's files would lie behind those of the servers before it.
"""

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from benchmark.load import say

# Of an image that takes no more than is written to it. Room for the million files of `growth`.
SIZE = 32 << 30
CLONE_NEWNS = 0x0002_0000
MADV_POPULATE_WRITE = 23
# More than a server stores in a second.
CLAIMED = 1 << 30


class Disks:
    """`is_own`: whether each directory that is asked for is a file system; else it lies in the run's, as `refused` says why."""

    def __init__(self, directory):
        self.directory, self.count = directory, 0
        self.refused = self.enter()
        if not self.refused:
            try:
                # What we mount is nobody else's.
                call("mount", "--make-rprivate", "/")
                with self.fresh():
                    pass
            except (OSError, subprocess.CalledProcessError) as error:
                self.refused = getattr(error, "stderr", "") or str(error)
        self.is_own = not self.refused
        if self.refused:
            say(f"no file system for each server: {self.refused}")

    def enter(self):
        """Mounts of our own, which are gone with the last process of the run. Returns why not."""
        if os.getuid() != 0:
            return "not root"
        if not shutil.which("mkfs.ext4"):
            return "no mkfs.ext4 (e2fsprogs)"
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            return os.strerror(ctypes.get_errno())
        return ""

    @contextmanager
    def fresh(self):
        """An empty directory, whose files are gone afterwards."""
        self.count += 1
        place = self.directory / f"disk-{self.count}"
        place.mkdir()
        if self.refused:
            try:
                yield place
            finally:
                empty_files(place)
            return
        image = place.with_suffix(".img")
        with open(image, "wb") as file:
            file.truncate(SIZE)
        try:
            call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", image)
            call("mount", "-o", "loop", image, place)
            try:
                yield place
            finally:
                # Who has not ended yet keeps it as long as that takes.
                call("umount", "--lazy", place)
        finally:
            image.unlink()


def empty_files(place):
    """Gives their space back. They are not removed before all is measured, see above."""
    for path in place.rglob("*"):
        if path.is_file() and path.stat().st_size > 4096:
            os.truncate(path, 0)


def claim_memory(seconds):
    """What the page cache will take in that time is used once and freed. A virtual machine may have given to its host what has been
    free for a while; getting it back costs some 10 µs a page, more than storing what goes onto it."""
    size = min(int(seconds * CLAIMED), available_memory() // 2)
    with mmap.mmap(-1, size) as room:
        try:
            room.madvise(MADV_POPULATE_WRITE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Linux before 5.14.
            for page in range(0, size, mmap.PAGESIZE):
                room[page] = 1


def available_memory():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 30


def call(*command):
    subprocess.run([*map(str, command)], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
