"""As much of the NATS client protocol as a worker needs, over a socket."""

from __future__ import annotations

import ipaddress
import json
import re
import selectors
import socket
import ssl
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Union
from urllib.parse import unquote, urlsplit

from ._version import __version__

DEFAULT_URL = "nats://127.0.0.1:4222"
CONNECT_WAIT = 4.0  # seconds for one address, and for the handshake
SEND_WAIT = 4.0  # seconds in which a server must accept what is sent
MAX_LINE = 1 << 20  # an INFO that lists a large cluster is long
READS = 64  # reads in a row, so that a flood of messages does not hold up a beat


class Server(NamedTuple):
    """Where a server is, and what to show it."""

    host: str
    port: int
    tls: bool = False
    tls_name: str = ""  # the name in its certificate, if that is not host
    user: str = ""
    password: str = ""
    token: str = ""

    def __str__(self) -> str:  # without secrets: it is logged
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'nats'}://{host}:{self.port}"


def parse_servers(
    urls: Union[str, Sequence[str]], user: str = "", password: str = "", token: str = "", tls: bool = False
) -> List[Server]:
    """Returns the servers that urls name: a list, or text with commas. Errors show no secrets."""
    texts = urls.split(",") if isinstance(urls, str) else list(urls)
    servers = [_parse_server(text.strip(), user, password, token) for text in texts if text.strip()]
    if not servers:
        raise ValueError("nats: no URL")
    tls = tls or any(server.tls for server in servers)  # one fabric: no password goes out in clear text
    return [server._replace(tls=tls) for server in servers]


def _parse_server(text: str, user: str, password: str, token: str) -> Server:
    shown = re.sub(r"^(.*//)?.*@", r"\1", text)
    try:
        url = urlsplit(text if "://" in text else "nats://" + text)
        host, port = url.hostname, url.port
    except ValueError:  # its text may hold a part of the password
        raise ValueError(f"nats: {shown!r} is not the URL of a server, such as {DEFAULT_URL}") from None
    if url.scheme not in ("nats", "tls"):
        raise ValueError(f"nats: {shown!r} has the scheme {url.scheme}, but only nats and tls are supported")
    if not host or url.path not in ("", "/") or url.query or url.fragment:
        raise ValueError(f"nats: {shown!r} is not the URL of a server, such as {DEFAULT_URL}")
    if url.username is not None and url.password is None:
        user, password, token = "", "", unquote(url.username)
    elif url.username is not None:
        user, password, token = unquote(url.username), unquote(url.password or ""), ""
    return Server(host, port or 4222, url.scheme == "tls", "", user, password, token)


class Pool:
    """The servers to try, in turn: those that were configured, then those that they name."""

    def __init__(self, servers: List[Server], shuffle: Callable[[List[Server]], None]) -> None:
        self._servers = list(servers)
        shuffle(self._servers)
        self._next = 0

    def __len__(self) -> int:
        return len(self._servers)

    def next(self) -> Server:
        """Returns the server to try now."""
        server = self._servers[self._next % len(self._servers)]
        self._next += 1
        return server

    def learn(self, current: Server, info: Dict[str, Any]) -> None:
        """Adds the servers that an INFO names. They take the credentials of current."""
        known = {(server.host, server.port) for server in self._servers}
        for text in info.get("connect_urls") or ():
            try:
                found = _parse_server(str(text), current.user, current.password, current.token)
            except ValueError:
                continue
            if (found.host, found.port) not in known and len(self._servers) < 64:
                name = (current.tls_name or current.host) if _is_address(found.host) else ""
                known.add((found.host, found.port))
                self._servers.append(found._replace(tls=current.tls, tls_name=name))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Op(NamedTuple):
    """One message of the server."""

    name: str  # INFO, MSG, PING, PONG, +OK, -ERR
    text: str = ""  # of INFO and -ERR
    payload: bytes = b""
    header: bytes = b""


class Parser:
    """Splits what a server sends into messages."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._need: Optional[Tuple[int, int]] = None  # bytes of the header and of all, of the message whose line was read

    def feed(self, data: bytes) -> List[Op]:
        """Returns the messages that data completes. A ValueError means that it is not NATS."""
        self._unread += data
        ops: List[Op] = []
        while True:
            op = self._body() if self._need else self._line()
            if op is None:
                if self._need and len(self._unread) >= self._need[1] + 2:
                    continue
                return ops
            ops.append(op)

    def _line(self) -> Optional[Op]:
        end = self._unread.find(b"\r\n")
        if end < 0:
            if len(self._unread) > MAX_LINE:
                raise ValueError("the server sends a line that does not end")
            return None
        line = self._unread[:end].decode("utf-8", "replace")
        del self._unread[: end + 2]
        name, _, rest = line.partition(" ")
        name = name.upper()
        if name in ("MSG", "HMSG"):
            words = rest.split()  # subject, sid, perhaps a reply subject, perhaps the size of the header, the size
            if len(words) < (4 if name == "HMSG" else 3):
                raise ValueError(f"the server sends {line[:40]!r}, which is too short")
            header, total = int(words[-2]) if name == "HMSG" else 0, int(words[-1])
            if not 0 <= header <= total:
                raise ValueError(f"the server sends a message of {total} bytes with {header} of headers")
            self._need = header, total
            return None
        if name not in ("INFO", "PING", "PONG", "+OK", "-ERR"):
            raise ValueError(f"the server sends {line[:40]!r}, which is not NATS")
        return Op(name, rest.strip())

    def _body(self) -> Optional[Op]:
        assert self._need
        header, total = self._need
        if len(self._unread) < total + 2:
            return None
        op = Op("MSG", "", bytes(self._unread[header:total]), bytes(self._unread[:header]))
        del self._unread[: total + 2]
        self._need = None
        return op


def wait(read: Sequence[socket.socket], write: Sequence[socket.socket], seconds: float) -> Set[socket.socket]:
    """Returns the sockets that are ready, after so many seconds at most."""
    # poll has no limit on the number of a file, and leaves nothing open that a fork inherits.
    selector = (getattr(selectors, "PollSelector", None) or selectors.SelectSelector)()
    try:
        for sock in read:
            selector.register(sock, selectors.EVENT_READ)
        for sock in write:
            selector.register(sock, selectors.EVENT_WRITE)
        return {key.fileobj for key, _ in selector.select(max(0.0, min(seconds, 3600.0)))}  # type: ignore[misc]
    finally:
        selector.close()


class Connection:
    """A connection to one server. Only the thread of its worker uses it."""

    def __init__(self, server: Server, name: str, context: Optional[ssl.SSLContext]) -> None:
        self.server = server
        self.info: Dict[str, Any] = {}
        self.unanswered = 0  # pings
        self.more = True  # something may have arrived that the socket does not show
        self._name = name
        self._context = context
        self._parser = Parser()
        self._early: List[Op] = []  # what came with the answer to the login
        self._sock: Optional[socket.socket] = None

    @property
    def sock(self) -> socket.socket:
        assert self._sock is not None
        return self._sock

    @property
    def id(self) -> str:
        """The conn of a beat: <server id>/<client id>, or empty if the server does not say it."""
        server, client = self.info.get("server_id"), self.info.get("client_id")
        text = f"{server}/{client}" if server and client else ""
        return text if len(text.encode()) <= 128 else ""

    @property
    def answers(self) -> bool:
        """Whether the server reports that a beat has no subscriber."""
        return bool(self.info.get("headers"))

    def open(self) -> None:
        """Connects and logs in. An OSError or ValueError says why that failed."""
        self._dial()
        self.sock.settimeout(CONNECT_WAIT)
        self._greet()
        if self.server.tls or self.info.get("tls_required"):
            self._secure()
        self.sock.sendall(f"CONNECT {json.dumps(self._options())}\r\nPING\r\n".encode())
        deadline = time.monotonic() + CONNECT_WAIT
        while time.monotonic() < deadline:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            ops = self._parser.feed(data)
            self._early += [op for op in ops if op.name != "PONG"]
            for op in ops:
                if op.name == "-ERR":
                    raise ConnectionError(f"the server refuses: {op.text}")
                if op.name == "PONG":
                    self.sock.setblocking(False)
                    return
        raise socket.timeout("the server does not answer")

    def _dial(self) -> None:
        error: Optional[OSError] = None
        found = socket.getaddrinfo(self.server.host, self.server.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            # It is kept before it connects: a fork meanwhile must find and close it.
            self._sock = socket.socket(family, kind, protocol)
            try:
                self._sock.settimeout(CONNECT_WAIT)
                self._sock.connect(address)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return
            except OSError as failed:
                error = failed
                self._sock.close()
        raise error or OSError("no address")

    def _greet(self) -> None:
        line = bytearray()
        while not line.endswith(b"\r\n"):  # by the byte: behind it TLS begins
            data = self.sock.recv(1)
            if not data:
                raise ConnectionError("the server closed the connection")
            line += data
            if len(line) > MAX_LINE:
                raise ValueError("the server sends a line that does not end")
        for op in self._parser.feed(bytes(line)):
            if op.name == "-ERR":
                raise ConnectionError(f"the server refuses: {op.text}")
            if op.name == "INFO":
                self.note(op)
                return
        raise ValueError("the server sends no INFO")

    def _secure(self) -> None:
        if not self.info.get("tls_required") and not self.info.get("tls_available"):
            raise ConnectionError("the server does not offer TLS")
        context = self._context or ssl.create_default_context()
        name = self.server.tls_name or self.server.host
        self._sock = context.wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
        self._sock.settimeout(CONNECT_WAIT)
        self._sock.do_handshake()

    def _options(self) -> Dict[str, Any]:
        options: Dict[str, Any] = {
            "verbose": False, "pedantic": False, "protocol": 1, "name": self._name, "lang": "python-hivebeat",
            "version": __version__, "tls_required": self.server.tls, "headers": self.answers, "no_responders": self.answers,
        }  # fmt: skip
        if self.server.token:
            options["auth_token"] = self.server.token
        elif self.server.user:
            options.update({"user": self.server.user, "pass": self.server.password})
        return options

    def note(self, op: Op) -> None:
        """Takes in an INFO: the first, or one that reports a change of the cluster."""
        info = json.loads(op.text)
        if not isinstance(info, dict):
            raise ValueError("the server sends an INFO that is not an object")
        self.info.update(info)

    def send(self, data: bytes) -> None:
        """Passes data to the system, and fails if the server accepts nothing for some seconds."""
        rest, deadline = memoryview(data), time.monotonic() + SEND_WAIT
        while rest:
            left = deadline - time.monotonic()
            try:
                rest = rest[self.sock.send(rest) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                wait((), (self.sock,), left)
            except ssl.SSLWantReadError:
                wait((self.sock,), (), left)
            if left < 0:
                raise socket.timeout("the server accepts nothing")

    def ping(self) -> None:
        """Asks for a PONG, which says that the server has everything that was sent before."""
        self.unanswered += 1
        self.send(b"PING\r\n")

    def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Sends a message. Any reply subject is one that the worker subscribes to."""
        head = f"PUB {subject} {reply} {len(payload)}" if reply else f"PUB {subject} {len(payload)}"
        self.send(head.encode() + b"\r\n" + payload + b"\r\n")

    def receive(self) -> List[Op]:
        """Returns what has arrived, without waiting."""
        ops, self._early = self._early, []
        for _ in range(READS):
            try:
                data = self.sock.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                self.more = False
                return ops
            if not data:
                raise ConnectionError("the server closed the connection")
            got = self._parser.feed(data)
            self.unanswered -= sum(op.name == "PONG" for op in got)
            ops += got
        self.more = True
        return ops

    def close(self) -> None:
        """Closes this process's side of the connection. It sends nothing, so a forked child may call it."""
        if self._sock is not None:
            self._sock.close()
