"""The worker: a background thread that beats, and the methods that a program calls."""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import os
import random
import socket
import ssl
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, Set, Union

from . import _facts, _process, _wire
from ._nats import DEFAULT_URL, Connection, Op, Pool, parse_servers, wait
from ._schedule import RECONNECT_WAIT, Audience, Pings, Schedule, reconnect_delay

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._facts import Facts

LAST_WAIT = 2.0  # seconds that stop and failed wait for the goodbye
LAST_RETRY = 0.1  # between attempts to connect for it
HASTE_PAUSE = 60.0  # a silent server is left early once in so many seconds
NOTICE_EVERY = 60.0


class Worker:
    """Beats to a hive for one program that serves one model.

    hive and id are the ids of the hive of this machine and of this worker: 1 to 64 of
    A-Z a-z 0-9 _ -. Two processes need two ids.

    nats is one URL or several (a list, or text with commas): nats://, tls:// or host:port, with
    user:password@ or token@. It is HIVEBEAT_NATS by default, or else nats://127.0.0.1:4222. user,
    password and token are for URLs that have none. tls is an SSLContext, with the authorities and
    the client certificate to use; it and tls:// make TLS a condition.

    every is the promise in seconds, 0.1 to 3600: the next beat comes within it. state is the
    first state. With pinned, the worker beats on its own subject. prefix goes before all
    subjects. facts are those of set.

    start begins to beat, and so do with and async with. All methods are safe for concurrent use.
    After a fork the child does not beat, and all methods do nothing there.
    """

    def __init__(
        self,
        hive: str,
        id: str,
        *,
        nats: Union[str, Sequence[str], None] = None,
        user: str = "",
        password: str = "",
        token: str = "",
        tls: Optional[ssl.SSLContext] = None,
        every: float = 30.0,
        state: str = "ready",
        pinned: bool = False,
        prefix: str = "",
        logger: Optional[logging.Logger] = None,
        **facts: Unpack[Facts],
    ) -> None:
        self.hive = _facts.check_id("hive", hive)
        self.id = _facts.check_id("id", id)
        if prefix and _facts.check_id("prefix", prefix) in ("_INBOX", "_R_", "_GR_"):
            raise ValueError(f"prefix: NATS delivers replies below {prefix}")
        if not 0.1 <= every <= 3600:
            raise ValueError(f"every: {every} is not between 0.1 and 3600 seconds")
        self._every = round(every * 1000)
        urls = nats if nats is not None else os.environ.get("HIVEBEAT_NATS") or DEFAULT_URL
        self._pool = Pool(parse_servers(urls, user, password, token, tls is not None), random.shuffle)
        self._tls = tls
        hive_subject = f"{prefix}.hive.{hive}" if prefix else f"hive.{hive}"
        self._subject = f"{hive_subject}.workers.{id}" if pinned else f"{hive_subject}.workers"
        self._rollcall = f"{hive_subject}.rollcall"
        self._log = logger or logging.getLogger("hivebeat")

        # What follows is under the lock, which a signal handler may take again.
        self._lock = threading.RLock()
        self._state = _facts.check_state(state)
        self._reason = ""
        self._facts: Dict[str, Any] = _facts.merge({}, facts)
        self._quiet: Optional[_Silence] = None
        self._bye = ""  # the state of the goodbye, once it is due
        self._bye_reason = ""
        self._bye_by = 0.0
        self._schedule: Optional[Schedule] = None
        self._armed = 0.0  # when the thread wakes next
        self._thread: Optional[threading.Thread] = None
        self._foreign = False  # this process is a fork of the one that beats
        self._wake: Optional[socket.socket] = None
        self._awake: Optional[socket.socket] = None

        # What follows belongs to the thread.
        self._conn: Optional[Connection] = None
        self._inc = 0
        self._seq = 0
        self._said = ""
        self._parted = False  # the goodbye was received by the server
        self._audience = Audience()
        self._left_at = -HASTE_PAUSE
        self._noticed_at = -NOTICE_EVERY
        self._faults: Set[str] = set()  # what was logged since there is no connection,
        self._refused = ""  # and what was logged last about permissions
        self._place: Dict[str, Any] = {}  # where this process runs

    def start(self) -> "Worker":
        """Begins to beat, in a background thread, and returns the worker at once.

        It does nothing if the worker beats already. A stopped worker cannot start again: make a
        new one, which has a new incarnation.
        """
        with self._lock:
            if self._foreign or self._bye:
                raise RuntimeError("the worker has ended, or another process started it: make a new one")
            if self._thread is not None:
                return self
            self._awake, self._wake = socket.socketpair()
            self._awake.setblocking(False)
            self._wake.setblocking(False)
            self._inc = time.time_ns() // 1000
            self._place = {"pid": os.getpid(), "ns": _process.namespace(), "host": _process.host_name()}
            self._schedule = Schedule(time.monotonic(), self._every / 1000, random.random)
            self._schedule.announce(self._quiet is not None)
            self._thread = threading.Thread(target=self._run, name=f"hivebeat {self.hive}/{self.id}", daemon=True)
            if hasattr(os, "register_at_fork"):  # it cannot be undone, so it must not keep the worker
                os.register_at_fork(after_in_child=functools.partial(_forked, weakref.ref(self)))
            atexit.register(self.stop)
            self._thread.start()
        return self

    def state(self, state: str, reason: str = "") -> None:
        """Sets the state, and a reason for people to read, which is cut to 256 bytes.

        A new state is sent at once, and a change between ready and busy, or of the reason alone,
        within a second. A state other than starting and loading ends an announced silence.
        stopped and failed are refused: stop and failed set them.
        """
        state, reason = _facts.check_state(state), _facts.clip_reason(reason)
        with self._lock:
            if (state, reason) == (self._state, self._reason):
                return
            urgent = not _facts.same_state(self._state, state)
            if state not in ("starting", "loading") and self._quiet is not None:
                self._hush(None)
                urgent = True
            self._state, self._reason = state, reason
            self._ask(Schedule.changed if urgent else Schedule.touched)

    def set(self, **facts: Unpack[Facts]) -> None:
        """Sets facts, which are sent within a second if they changed. None removes one.

        A fact that no beat may hold is a ValueError or TypeError that names it, and changes
        nothing.
        """
        with self._lock:
            self._replace(_facts.merge(self._facts, facts))

    def add(self, **counts: int) -> None:
        """Adds to facts that are whole numbers: worker.add(busy=-1, done=1) when a request ends."""
        with self._lock:
            self._replace(_facts.merge(self._facts, {key: self._facts.get(key, 0) + n for key, n in counts.items()}))

    def _replace(self, facts: Dict[str, Any]) -> None:
        if facts != self._facts:
            self._facts = facts
            self._ask(Schedule.touched)

    def quiet(self, seconds: float, wait: float = 1.0) -> "Quiet":
        """Announces that no beat may come for so many seconds, 600 at most.

        Call it right before something that may block every thread, as loading a model does. It
        waits until the announcement was sent three times, which takes half a second, but no
        longer than wait seconds: without NATS the next beats carry the rest of the silence.

        The silence ends with its time, with a state other than starting and loading, with
        quiet(0), or with the end of a with block over the result. In asyncio, use
        "async with worker.quiet(300, wait=0)", which does not block the loop.
        """
        if not seconds >= 0:
            raise ValueError(f"quiet: {seconds} is negative")
        silence = _Silence(time.monotonic() + min(seconds, _facts.MAX_QUIET / 1000))
        with self._lock:
            ended = self._quiet is not None and not seconds
            if not self._bye:
                self._hush(silence if seconds else None)
            if ended:
                self._ask(Schedule.changed)
            if not seconds or self._thread is None or self._bye:
                silence.settled.set()  # there is nothing to wait for
        silence.settled.wait(wait)
        return Quiet(self, silence)

    def _hush(self, silence: "Optional[_Silence]") -> None:
        """Begins an announced silence, or ends the one that there is, without a beat for that."""
        if self._quiet is not None:
            self._quiet.settled.set()
        self._quiet = silence
        if self._schedule is not None:
            self._schedule.announce(silence is not None)
            if silence is not None:
                self._rouse()

    def _end_quiet(self, silence: "_Silence") -> None:
        with self._lock:
            if self._quiet is silence:
                self._hush(None)
                self._ask(Schedule.changed)

    def stop(self, timeout: float = LAST_WAIT) -> bool:
        """Says goodbye, so that the worker has left and is not lost, and ends the thread.

        It waits so many seconds at most, and returns whether the server has the goodbye. It is
        called at the normal end of the process. A process that a signal ends by default does not
        end normally: install a handler that raises SystemExit.
        """
        return self._end("stopped", "", timeout)

    def failed(self, reason: str, timeout: float = LAST_WAIT) -> bool:
        """Is stop with the state failed: the worker gives up, for a reason that people can read."""
        return self._end("failed", _facts.clip_reason(reason), timeout)

    def _end(self, state: str, reason: str, timeout: float) -> bool:
        with self._lock:
            thread = self._thread
            if self._foreign:
                return False
            if not self._bye:
                self._bye, self._bye_reason = state, reason
                self._hush(None)
                self._bye_by = time.monotonic() + timeout
                self._rouse()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        atexit.unregister(self.stop)
        return self._parted

    def __enter__(self) -> "Worker":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> "Worker":
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.stop)

    def _ask(self, request: Callable[[Schedule, float], None]) -> None:
        """Requests a beat, and wakes the thread if that is due sooner than it knows."""
        if self._schedule is None or self._foreign:
            return  # the first beat carries everything
        request(self._schedule, time.monotonic())
        if self._schedule.next() < self._armed:
            self._rouse()

    def _rouse(self) -> None:
        self._armed = 0.0
        if self._wake is not None:
            try:
                self._wake.send(b"\0")
            except OSError:
                pass  # it is full: the thread wakes anyway

    # Everything below runs in the thread.

    def _run(self) -> None:
        attempts = 0
        try:
            while not self._over():
                conn = self._conn = Connection(self._pool.next(), f"hivebeat worker {self.hive}/{self.id}", self._tls)
                try:
                    conn.open()
                    attempts = 0
                    self._serve(conn)
                    return
                except (OSError, ValueError) as error:
                    self._fault(conn, str(error) or type(error).__name__)
                except Exception:
                    self._log.exception("the connection of worker %s/%s failed, trying again", self.hive, self.id)
                finally:
                    conn.close()
                attempts += 1
                self._pause(time.monotonic() + reconnect_delay(attempts, random.random()))
        finally:
            with self._lock:
                self._hush(None)
                for sock in (self._wake, self._awake):
                    if sock is not None:
                        sock.close()
                self._wake = self._awake = None

    def _over(self) -> bool:
        """Reports whether there is nothing left to do: the goodbye is due and nothing can hear it."""
        with self._lock:
            return bool(self._bye) and (self._seq == 0 or time.monotonic() >= self._bye_by)

    def _fault(self, conn: Connection, text: str) -> None:
        if text not in self._faults:
            self._faults.add(text)
            self._log.warning("no connection to NATS at %s, trying again: %s", conn.server, text)

    def _pause(self, until: float) -> None:
        """Waits to connect again. Beats that cannot be sent meanwhile use up their numbers."""
        # A gap in the numbers shows the hive that the worker was cut off, and did not stop.
        while not self._over():
            now = time.monotonic()
            with self._lock:
                assert self._schedule is not None
                if self._seq and self._schedule.missed(now):
                    self._seq += 1
                if self._bye:
                    until = min(until, now + LAST_RETRY)
                self._armed = 0.0  # no request is worth a wake
            if now >= until:
                return
            assert self._awake is not None
            if wait((self._awake,), (), min(until - now, 1.0)):
                self._doze()
                until = min(until, time.monotonic() + LAST_RETRY) if self._bye else until

    def _doze(self) -> None:
        """Takes in the wake-ups so far."""
        assert self._awake is not None
        try:
            while self._awake.recv(4096):
                pass
        except OSError:
            pass

    def _serve(self, conn: Connection) -> None:
        """Beats over conn until the goodbye. An OSError or ValueError says that conn is lost."""
        self._pool.learn(conn.server, conn.info)
        if self._faults:
            self._faults.clear()
            self._log.info("connected to NATS at %s", conn.server)
        conn.send(f"SUB {self._rollcall} 1\r\n".encode())
        now = time.monotonic()
        hasty = len(self._pool) > 1
        not_before = self._left_at + HASTE_PAUSE if hasty else now
        pings = Pings(now, self._every / 1000, hasty, not_before, random.random)
        self._audience.reconnected()
        assert self._schedule is not None and self._awake is not None
        with self._lock:
            self._schedule.reconnected(now)
        while True:
            with self._lock:
                if self._bye:
                    break
                self._armed = min(self._schedule.next(), pings.due)
                seconds = 0.0 if conn.more else self._armed - time.monotonic()
            if self._awake in wait((conn.sock, self._awake), (), seconds):
                self._doze()
            ops = conn.receive()
            now = time.monotonic()
            if ops:
                pings.alive(now)
            for op in ops:
                self._handle(conn, op, now)
            ping, leave = pings.tick(now)
            if leave:
                self._left_at = now if hasty else self._left_at
                raise socket.timeout("the server does not answer")
            if ping:
                conn.ping()
            with self._lock:
                due = self._schedule.next() <= now and not self._bye
            if due:
                self._beat(conn, now)
        self._part(conn)

    def _beat(self, conn: Connection, now: float, last: bool = False) -> None:
        with self._lock:
            assert self._schedule is not None
            self._schedule.begin(now)
            if self._quiet is not None and self._quiet.until <= now:
                self._hush(None)
            silence = self._quiet
            quiet = max(1, round((silence.until - now) * 1000)) if silence is not None else 0
            state, reason = (self._bye, self._bye_reason) if last else (self._state, self._reason)
            facts = self._facts
        self._seq += 1
        head = {
            "v": 1, "hive": self.hive, "worker": self.id, "inc": self._inc, "every": self._every, "state": state,
            "reason": reason, "quiet": quiet, **self._place, "conn": conn.id, "rw": round(RECONNECT_WAIT * 1000),
        }  # fmt: skip
        boot = _process.boot_clock() if head["ns"] else 0
        payload = _wire.beat(head, facts, self._seq, time.time_ns() // 1_000_000, boot)
        reply = self._rollcall if conn.answers and self._audience.ask(now) else ""
        conn.publish(self._subject, payload, reply)
        if self._seq == 1:
            self._log.info("beating to its hive: %s/%s every %g s", self.hive, self.id, self._every / 1000)
        if self._said and not _facts.same_state(self._said, state):
            self._log.info("state of %s/%s: %s, before %s %s", self.hive, self.id, state, self._said, reason)
        self._said = state
        with self._lock:
            if silence is not None and silence is self._quiet and self._schedule.announced(now):
                silence.announced = True
                silence.settled.set()

    def _part(self, conn: Connection) -> None:
        """Says goodbye, and waits until the server has it."""
        self._beat(conn, time.monotonic(), last=True)
        conn.ping()
        while conn.unanswered and time.monotonic() < self._bye_by:
            wait((conn.sock,), (), self._bye_by - time.monotonic())
            conn.receive()
        self._parted = not conn.unanswered

    def _handle(self, conn: Connection, op: Op, now: float) -> None:
        if op.name == "PING":
            conn.send(b"PONG\r\n")
        elif op.name == "INFO":
            conn.note(op)
            self._pool.learn(conn.server, conn.info)
        elif op.name == "-ERR":
            if "permissions violation" not in op.text.lower():
                raise ConnectionError(f"the server ends the connection: {op.text}")
            if op.text != self._refused:
                self._refused = op.text
                self._log.warning("NATS refuses worker %s/%s: %s", self.hive, self.id, op.text)
        elif op.name == "MSG":
            self._hear(op, now)

    def _hear(self, op: Op, now: float) -> None:
        """Handles a message on the subject of roll calls."""
        if op.header.startswith(b"NATS/1.0 503"):
            level = {"new": logging.INFO, "long": logging.WARNING}.get(self._audience.nobody(now))
            if level:
                self._log.log(level, "no hive subscribes to %s: does it run, with this id and prefix?", self._subject)
            return
        spread = _wire.parse_spread(op.payload)
        if spread is not None:
            if self._audience.heard():
                self._log.info("a hive subscribes to %s", self._subject)
            with self._lock:
                assert self._schedule is not None
                self._schedule.called(now, spread)
            return
        notice = _wire.parse_notice(op.payload)
        if notice is not None:
            if (notice.id, notice.inc) == (self.id, self._inc) and now - self._noticed_at >= NOTICE_EVERY:
                self._noticed_at = now
                self._log.warning(
                    "beats of worker %s/%s are refused: another process uses its id (incarnation %d, accepted is %d); "
                    "stop one of the two, or give it another id",
                    self.hive, self.id, notice.inc, notice.believed,
                )  # fmt: skip
        elif op.payload.startswith(b"{"):
            self._audience.off = True  # a stream that stores beats answers questions


class _Silence:
    """An announced silence."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.announced = False  # three times
        self.settled = threading.Event()  # it was announced, or will not be any more


class Quiet:
    """The result of Worker.quiet. A with block over it ends the silence when it ends itself."""

    def __init__(self, worker: Worker, silence: _Silence) -> None:
        self._worker = worker
        self._silence = silence

    @property
    def announced(self) -> bool:
        """Whether the announcement was sent three times."""
        return self._silence.announced

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        self._worker._end_quiet(self._silence)

    async def __aenter__(self) -> "Quiet":
        await asyncio.get_running_loop().run_in_executor(None, self._silence.settled.wait, 1.0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._worker._end_quiet(self._silence)


def _forked(ref: "weakref.ref[Worker]") -> None:
    """Runs in a forked child, which has a copy of the worker, and its sockets but not its thread."""
    worker = ref()
    if worker is None:
        return
    worker._lock = threading.RLock()  # the thread of the parent may hold the old one
    worker._foreign = True
    worker._thread = None
    # The connection is the parent's. An open copy here would keep it open when the parent dies,
    # and hide the death from NATS.
    if worker._conn is not None:
        worker._conn.close()
    for sock in (worker._wake, worker._awake):
        if sock is not None:
            sock.close()
    worker._wake = worker._awake = None
    atexit.unregister(worker.stop)
