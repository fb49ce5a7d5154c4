"""When the next beat is due. Everything here is pure: time is an argument."""

from __future__ import annotations

import math
from typing import Callable, Optional, Tuple

NEVER = math.inf

GATHER = 0.05  # changes of state within this time after one that was sent are sent together
BURST = 5  # so many of them are sent in a row, then one a second
FACTS_PACE = 1.0
ROLL_PACE = 1.0
BACK_PACE = 1.0
BACK_SPREAD = 0.25  # workers that reconnect together spread over this, or every / 20
ANNOUNCE_TIMES = 3  # a silence is announced so often,
ANNOUNCE_GAP = 0.25  # and so far apart


class Schedule:
    """Decides when the next beat is due, by docs/PROTOCOL.md. Not safe for concurrent use.

    A beat carries everything, so the next one answers every request, whatever it is sent for.
    """

    def __init__(self, now: float, every: float, rand: Callable[[], float]) -> None:
        self._every = every
        self._rand = rand
        self._regular = now  # the promise
        self._last = -NEVER  # when the last beat began
        self._changed = NEVER  # when each kind of beat was requested
        self._touched = NEVER
        self._called = NEVER
        self._back = NEVER
        self._changed_at = -NEVER  # when the last of its kind was sent
        self._called_at = -NEVER
        self._back_at = -NEVER
        self._full = -NEVER  # when the whole burst of changes is available again
        self._announcements = 0  # of a silence, that are due
        self._announced_at = -NEVER

    def changed(self, now: float) -> None:
        """Requests a beat at once, because the state changed or a silence ended."""
        self._changed = min(self._changed, now)

    def touched(self, now: float) -> None:
        """Requests a beat within a second of the one before, because facts changed."""
        self._touched = min(self._touched, now)

    def called(self, now: float, spread: float) -> None:
        """Requests a beat for a roll call, after a random part of spread."""
        self._called = min(self._called, now + self._rand() * min(spread, self._every))

    def reconnected(self, now: float) -> None:
        """Requests a beat soon, because a connection was established."""
        self._back = min(self._back, now + self._rand() * min(BACK_SPREAD, self._every / 20))

    def announce(self, silence: bool) -> None:
        """Requests three beats within a second, the first at once, or none of them any longer."""
        self._announcements, self._announced_at = ANNOUNCE_TIMES if silence else 0, -NEVER

    def next(self) -> float:
        """Returns when the next beat is due, which may be in the past."""
        due = self._regular
        if self._changed < NEVER:
            due = min(due, max(self._changed, self._changed_at + GATHER, self._full - (BURST - 1)))
        if self._touched < NEVER:
            due = min(due, max(self._touched, self._last + FACTS_PACE))
        if self._called < NEVER:
            due = min(due, max(self._called, self._called_at + ROLL_PACE))
        if self._back < NEVER:
            due = min(due, max(self._back, self._back_at + BACK_PACE))
        if self._announcements:
            due = min(due, self._announced_at + ANNOUNCE_GAP)
        return due

    def begin(self, now: float) -> None:
        """Marks that a beat is built now: requests from here on are for the next one.

        If it cannot be sent, the connection is lost, and the beat after the next connection
        carries all that was requested.
        """
        if self._changed < NEVER:
            self._changed_at = now
            self._full = max(self._full, now) + 1
        if self._called < NEVER:
            self._called_at = now
        if self._back < NEVER:
            self._back_at = now
        self._changed = self._touched = self._called = self._back = NEVER
        self._last = now
        self._regular = now + self._jitter()

    def announced(self, now: float) -> bool:
        """Marks that a beat with the silence was sent, and reports whether no more are due."""
        self._announced_at = now
        self._announcements = max(0, self._announcements - 1)
        return self._announcements == 0

    def missed(self, now: float) -> bool:
        """Reports whether a regular beat was due and could not be sent, and passes over it."""
        if now < self._regular:
            return False
        self._regular = now + self._jitter()
        return True

    def _jitter(self) -> float:
        return self._every * (0.85 + 0.1 * self._rand())


def reconnect_delay(attempt: int, rand: float) -> float:
    """Returns the seconds before an attempt to reconnect, which is 1 for the first.

    The wait grows by a tenth each time, from 0.25 to 5 s, and is shifted by up to half, so that
    it is about a tenth of the time that NATS was away, and workers do not come back all at once.
    """
    wait = min(RECONNECT_WAIT * 1.1 ** min(attempt - 1, 100), 5.0)
    return wait * (0.5 + rand)


RECONNECT_WAIT = 0.25  # seconds: the rw of a beat


class Pings:
    """Decides when to ping the server, and when it has not answered for too long.

    A worker that knows another server (hasty) leaves one that is silent before its promise is
    broken for long, and otherwise after 20 to 30 s. Time that this process did not run does not count:
    only pings do, and the caller reads everything that arrived before it asks.
    """

    def __init__(self, now: float, every: float, hasty: bool, leave: float, rand: Callable[[], float]) -> None:
        answer = min(max(every, 1.0), 4.0) / 2
        self._idle = min(10.0, max(every / 2, answer)) if hasty else 10.0
        self._answer = answer if hasty else 10.0
        self._extra = every / 4 * rand() if hasty else 0.0
        self._leave = leave  # no sooner than this
        self._outstanding = 0
        self.due = now + self._idle

    def alive(self, now: float) -> None:
        """Marks that the server answered."""
        if self._outstanding:
            self._outstanding = 0
            self.due = now + self._idle

    def tick(self, now: float) -> "Tuple[bool, bool]":
        """Returns whether to ping now, and whether to leave the server."""
        if now < self.due:
            return False, False
        if self._outstanding >= 2 and now >= self._leave:
            return False, True
        self._outstanding += 1
        self.due = now + self._answer + (self._extra if self._outstanding == 2 else 0.0)
        return True, False


class Audience:
    """Tracks whether a hive subscribes to the beats.

    If there is no subscriber, the server answers a beat that has a reply subject with status 503.
    """

    def __init__(self) -> None:
        self._asked: Optional[float] = None
        self._since: Optional[float] = None  # the first 503 of an unbroken row
        self._open = False  # no 503 came for the last question
        self._told = False
        self._warned = False
        self.off = False  # something answers beats, so that no 503 ever comes

    def ask(self, now: float) -> bool:
        """Reports whether the next beat must be a question."""
        wait = 60.0 if self._since is None else 10.0
        if self.off or (self._asked is not None and now - self._asked < wait):
            return False
        if self._open:
            self._since = None
        self._asked, self._open = now, True
        return True

    def nobody(self, now: float) -> str:
        """Marks a 503. Returns "new" or "long" if that should be logged."""
        self._open = False
        if self._since is None:
            self._since = now
        if not self._told:
            self._told = True
            return "new"
        if not self._warned and now - self._since >= 60:
            self._warned = True
            return "long"
        return ""

    def heard(self) -> bool:
        """Marks a roll call, which only a subscriber sends. Returns whether to log that."""
        told = self._told
        self._told = self._warned = self._open = False
        self._since = None
        return told

    def reconnected(self) -> None:
        """Forgets the outstanding question, because its answer may be lost."""
        self._asked, self._open = None, False
