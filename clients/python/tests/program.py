"""A program with a worker, which the tests in Go drive: it runs each line of its input as Python.

usage: program.py HIVE WORKER [KEYWORDS]: KEYWORDS are those of Worker, as Python: "every=0.2, pinned=True"

It prints "ok", or what was raised, for each line. It ends in order at the end of its input.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import hivebeat  # noqa: E402

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
keywords = eval(f"dict({sys.argv[3]})") if len(sys.argv) > 3 else {}
worker = hivebeat.Worker(sys.argv[1], sys.argv[2], **keywords)
scope = {"asyncio": asyncio, "hivebeat": hivebeat, "os": os, "sys": sys, "threading": threading, "time": time, "w": worker}
for line in sys.stdin:
    try:
        exec(line, scope)
        print("ok", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
