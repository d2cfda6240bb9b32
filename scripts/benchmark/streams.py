"""Clients that ask for one large thing after the other, and look at as little as can be: wrk cannot speak CONNECT.

They are one loop that takes octets out of its sockets without copying them (MSG_TRUNC), so that the servers are what is
measured. Content is not looked at; that it has the right length is.
"""

import selectors
import socket
import time

ROOM = 1 << 20
HEAD_ENDS = b"\r\n\r\n"


class Stream:
    """One connection on which `path` is asked for again and again. `through`: the address that a tunnel leads to."""

    def __init__(self, port, path, through=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        # Octets that are missing of the answer; None: its head has not come.
        self.left = None
        if through:
            self.open_tunnel(through)

    def open_tunnel(self, through):
        self.socket.sendall(f"CONNECT {through} HTTP/1.1\r\nHost: {through}\r\n\r\n".encode())
        answer = self.read_head()
        if b" 200" not in answer.split(b"\r\n")[0]:
            raise OSError(answer.decode(errors="replace"))

    def read_head(self):
        """The head alone: what comes after it stays."""
        while HEAD_ENDS not in (seen := self.socket.recv(ROOM, socket.MSG_PEEK)):
            if not seen:
                raise OSError("the server has closed a connection")
            time.sleep(0.0001)
        return self.socket.recv(seen.index(HEAD_ENDS) + len(HEAD_ENDS))

    def ask(self):
        self.left = None
        self.socket.sendall(self.request)

    def read(self, room):
        """How many octets of content have come; asks anew when there is no more."""
        if self.left is None:
            self.left = content_length(self.read_head())
            return 0
        got = self.socket.recv_into(room, min(len(room), self.left), socket.MSG_TRUNC)
        if got == 0:
            raise OSError("the server has closed a connection")
        self.left -= got
        if self.left == 0:
            self.ask()
        return got


def content_length(head):
    fields = head.decode().lower().split("\r\n")
    if " 200 " not in fields[0] + " ":
        raise OSError(fields[0])
    return next(int(field.partition(":")[2]) for field in fields if field.startswith("content-length:"))


def drain(streams, seconds=None, until=None):
    """Octets of content that have come, after so many seconds or when `until` (a threading.Event) is set."""
    room, octets = bytearray(ROOM), 0
    deadline = time.monotonic() + seconds if seconds else float("inf")
    with selectors.DefaultSelector() as poll:
        for stream in streams:
            poll.register(stream.socket, selectors.EVENT_READ, stream)
            stream.ask()
        while time.monotonic() < deadline and not (until and until.is_set()):
            for key, _ in poll.select(0.1):
                octets += key.data.read(room)
    for stream in streams:
        stream.socket.close()
    return octets
