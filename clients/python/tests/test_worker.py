"""The worker without NATS, and what it says about its process."""

import logging
import os
import tempfile
import threading
import unittest
import warnings

from hivebeat import Worker, _process

NOWHERE = "nats://127.0.0.1:1"  # where nothing listens


class WithoutNATS(unittest.TestCase):
    def worker(self, **keywords: object) -> Worker:
        logger = logging.Logger("silent", logging.CRITICAL)
        return Worker("gpu-01", "snake", nats=NOWHERE, logger=logger, **keywords)  # type: ignore[arg-type]

    def test_before_start(self) -> None:
        worker = self.worker()
        worker.set(busy=1)
        worker.state("loading")
        self.assertFalse(worker.quiet(60, wait=60).announced)  # there is nothing to wait for
        self.assertFalse(worker.stop())
        with self.assertRaises(RuntimeError):
            worker.start()

    def test_stop_without_a_beat(self) -> None:
        worker = self.worker().start()
        self.assertIs(worker.start(), worker)
        worker.set(busy=1)
        self.assertFalse(worker.quiet(60, wait=0).announced)
        self.assertFalse(worker.failed("no NATS", timeout=30))  # no hive knows it: there is nothing to say
        self.assertFalse(worker.stop())
        self.assertFalse(worker.quiet(60, wait=60).announced)
        names = [thread.name for thread in threading.enumerate()]
        self.assertNotIn("hivebeat gpu-01/snake", names)

    def test_another_silence_frees_the_first(self) -> None:
        with self.worker() as worker:
            first = worker.quiet(60, wait=0)
            waiting = threading.Thread(target=first._silence.settled.wait)
            waiting.start()
            worker.quiet(60, wait=0)
            waiting.join(30)
            self.assertFalse(waiting.is_alive())
            with first:
                pass  # the end of the first does not end the second
            self.assertIsNotNone(worker._quiet)
            worker.state("loading")
            self.assertIsNotNone(worker._quiet)
            worker.state("ready")
            self.assertIsNone(worker._quiet)

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork")
    def test_fork_while_it_connects(self) -> None:
        worker = self.worker().start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the fork of a process with threads, since 3.12
            child = os.fork()
        if child == 0:
            worker.set(busy=1)
            worker.state("busy")
            os._exit(0 if not worker.stop() and worker._wake is None and worker._thread is None else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(worker._thread is not None and worker._thread.is_alive())
        worker.stop()


class Process(unittest.TestCase):
    def test_namespace(self) -> None:
        for boot, link, want in (
            ("a1b2-c3\n", "pid:[4026531836]", "a1b2-c3/4026531836"),
            ("", "pid:[4026531836]", ""),
            ("\n", "pid:[4026531836]", ""),
            ("a1b2-c3\n", "", ""),
            ("a1b2-c3\n", "/proc/1/ns", ""),
            ("x" * 65, "pid:[1]", ""),
        ):
            with tempfile.TemporaryDirectory() as proc:
                os.makedirs(os.path.join(proc, "sys/kernel/random"))
                os.makedirs(os.path.join(proc, "self/ns"))
                if boot:
                    with open(os.path.join(proc, "sys/kernel/random/boot_id"), "w", encoding="ascii") as file:
                        file.write(boot)
                if link:
                    os.symlink(link, os.path.join(proc, "self/ns/pid"))
                self.assertEqual(_process.namespace(proc), want)

    def test_clock(self) -> None:
        one, two = _process.boot_clock(), _process.boot_clock()
        self.assertLessEqual(one, two)
        self.assertLessEqual(len(_process.host_name().encode()), 256)
