"""The pace of beats, in a time of its own."""

import unittest

from hivebeat._schedule import Audience, Pings, Schedule, reconnect_delay


class Rand:
    """Returns the numbers given, again and again."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.numbers[(self.calls - 1) % len(self.numbers)]


def started(every: float = 30.0, rand: float = 0.5) -> Schedule:
    """Returns a schedule whose first beat was sent at 1000."""
    schedule = Schedule(1000.0, every, Rand(rand))
    schedule.begin(1000.0)
    return schedule


class Pace(unittest.TestCase):
    def test_the_first_at_once(self) -> None:
        self.assertEqual(Schedule(1000.0, 30.0, Rand(0.5)).next(), 1000.0)

    def test_rhythm(self) -> None:
        for rand, wait in ((0.0, 25.5), (0.5, 27.0), (1.0, 28.5)):
            self.assertAlmostEqual(started(rand=rand).next(), 1000 + wait)

    def test_changes(self) -> None:
        schedule, sent, now = started(), [], 1001.0
        while now < 1021:  # the state changes all the time
            schedule.changed(now)
            if schedule.next() <= now:
                schedule.begin(now)
                sent.append(now)
            now += 0.01
        self.assertEqual(sent[0], 1001.0)
        self.assertLessEqual(len(sent), 26)
        self.assertGreaterEqual(len(sent), 24)
        self.assertGreaterEqual(min(b - a for a, b in zip(sent, sent[1:])), 0.049)

    def test_facts(self) -> None:
        schedule = started()
        schedule.touched(1000.2)
        self.assertEqual(schedule.next(), 1001.0)
        schedule.begin(1001.0)
        schedule.touched(1005.0)
        self.assertEqual(schedule.next(), 1005.0)

    def test_roll_calls(self) -> None:
        schedule = started()
        schedule.called(1000.0, 10.0)
        schedule.called(1003.0, 10.0)  # the first decides
        self.assertEqual(schedule.next(), 1005.0)
        schedule.begin(1005.0)
        schedule.called(1005.1, 0.0)
        self.assertEqual(schedule.next(), 1006.0)
        schedule.changed(1005.2)  # a beat that is due anyway is the answer
        schedule.begin(1005.2)
        self.assertGreater(schedule.next(), 1030)
        schedule.called(1010.0, 600.0)  # no longer than the promise
        self.assertEqual(schedule.next(), 1025.0)

    def test_reconnects(self) -> None:
        schedule = started(every=2.0)
        schedule.reconnected(1000.5)
        self.assertEqual(schedule.next(), 1000.55)
        schedule.begin(1000.55)
        schedule.reconnected(1000.6)
        self.assertEqual(schedule.next(), 1001.55)

    def test_announcements(self) -> None:
        schedule, sent, now = started(), [], 1005.0
        schedule.announce(True)
        while not sent or not done:
            now = max(now, schedule.next())
            schedule.begin(now)
            done = schedule.announced(now)
            sent.append(now)
        self.assertEqual(sent, [1005.0, 1005.25, 1005.5])
        schedule.announce(True)
        schedule.announce(False)
        self.assertGreater(schedule.next(), 1030)

    def test_missed(self) -> None:
        schedule = started()
        self.assertFalse(schedule.missed(1026.9))
        self.assertTrue(schedule.missed(1027.0))
        self.assertFalse(schedule.missed(1027.1))

    def test_reconnect_delay(self) -> None:
        self.assertEqual(reconnect_delay(1, 0.0), 0.125)
        self.assertEqual(reconnect_delay(1, 1.0), 0.375)
        self.assertEqual(reconnect_delay(10**6, 0.5), 5.0)
        away = 0.0
        for attempt in range(1, 100):
            wait = reconnect_delay(attempt, 0.5)
            self.assertLessEqual(wait, 0.25 + away / 10 + 1e-9)
            away += wait


class Silence(unittest.TestCase):
    def leaves(self, every: float, hasty: bool, leave: float = 0.0) -> float:
        """Returns how long the server may be silent."""
        pings, now = Pings(1000.0, every, hasty, leave, Rand(1.0)), 1000.0
        while True:
            now = pings.due
            if pings.tick(now)[1]:
                return now - 1000

    def test_leaves(self) -> None:
        self.assertEqual(self.leaves(30.0, False), 30.0)
        self.assertEqual(self.leaves(1.0, False), 30.0)
        self.assertEqual(self.leaves(30.0, True), 10 + 4 + 7.5)
        self.assertEqual(self.leaves(1.0, True), 0.5 + 1 + 0.25)
        self.assertGreaterEqual(self.leaves(1.0, True, leave=1060.0), 60.0)  # it left one a short while ago

    def test_an_answer(self) -> None:
        pings = Pings(1000.0, 30.0, False, 0.0, Rand(0.5))
        for now in (1010.0, 1020.0):
            self.assertEqual(pings.tick(now), (True, False))
        pings.alive(1021.0)
        self.assertEqual(pings.tick(1030.0), (False, False))
        self.assertEqual(pings.tick(1031.0), (True, False))

    def test_a_stop_of_this_process(self) -> None:
        pings = Pings(1000.0, 30.0, False, 0.0, Rand(0.5))
        self.assertEqual(pings.tick(5000.0), (True, False))  # it did not run meanwhile
        self.assertEqual(pings.tick(5000.1), (False, False))


class Subscribers(unittest.TestCase):
    def test_audience(self) -> None:
        audience = Audience()
        self.assertTrue(audience.ask(0))
        self.assertEqual(audience.nobody(0), "new")
        self.assertFalse(audience.ask(9))
        for now in range(10, 60, 10):
            self.assertTrue(audience.ask(now))
            self.assertEqual(audience.nobody(now), "")
        self.assertTrue(audience.ask(60))
        self.assertEqual(audience.nobody(60), "long")
        self.assertTrue(audience.heard())
        self.assertFalse(audience.heard())
        self.assertFalse(audience.ask(100))
        self.assertTrue(audience.ask(120))
        audience.reconnected()
        self.assertTrue(audience.ask(121))
        audience.off = True
        self.assertFalse(audience.ask(1000))
