#!/usr/bin/env python3
"""A hivebeat worker by docs/PROTOCOL.md alone: plain NATS over a socket, msgpack by hand.
usage: HIVEBEAT_NATS=nats://127.0.0.1:4222 worker.py HIVE WORKER MODEL [EVERY_MS]"""
import json, os, random, re, select, signal, socket, struct, sys, time
from urllib.parse import urlparse

if len(sys.argv) < 4 or not all(re.fullmatch("[A-Za-z0-9_-]{1,64}", id) for id in sys.argv[1:3]):
    sys.exit(__doc__)
hive, worker, model = sys.argv[1:4]
every = int(sys.argv[4]) if len(sys.argv) > 4 else 30_000  # the promise: a beat within so many ms
url = urlparse(os.environ.get("HIVEBEAT_NATS", "nats://127.0.0.1:4222"))
inc, seq = time.time_ns() // 1000, 0  # incarnation: Unix µs when this process began; its beats are 1, 2, 3 …
try: ns = open("/proc/sys/kernel/random/boot_id").read().strip() + "/" + os.readlink("/proc/self/ns/pid")[5:-1]
except OSError: ns = ""  # not Linux: no hive looks up the pid
awake, wake = socket.socketpair()  # a signal writes to it, so that select returns at once
wake.setblocking(False)
signal.set_wakeup_fd(wake.fileno())
for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: None)

def pack(v):  # msgpack; each type in one wide form, since a reader takes any
    if isinstance(v, int): return struct.pack(">BQ", 0xCF, v)
    if isinstance(v, str): return struct.pack(">BH", 0xDA, len(v.encode())) + v.encode()
    return struct.pack(">BH", 0xDE, len(v)) + b"".join(pack(key) + pack(value) for key, value in v.items())

def beat(nats, conn, state):
    global seq
    seq += 1  # one that still loads adds "need" before "seq": bytes of GPU memory that it will hold, kept free for it
    b = pack({"v": 1, "hive": hive, "worker": worker, "inc": inc, "every": every, "state": state,
              "pid": os.getpid(), "ns": ns, "host": socket.gethostname(), "conn": conn, "rw": 500, "model": model, "slots": 1,
              "seq": seq, "sent": time.time_ns() // 1_000_000, "boot": time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 if ns else 0})
    nats.sendall(f"PUB hive.{hive}.workers {len(b)}\r\n".encode() + b + b"\r\n")

def serve(nats):  # until a signal comes; an OSError says that the connection is gone
    info = json.loads(nats.makefile("rb").readline().removeprefix(b"INFO "))  # what the server says first, and alone
    conn = f"{info['server_id']}/{info['client_id']}"  # so that a hive that hears disconnects knows ours
    options = {"verbose": False, "name": f"worker {hive}/{worker}", "user": url.username, "pass": url.password}
    nats.sendall(f"CONNECT {json.dumps(options)}\r\nSUB hive.{hive}.rollcall 1\r\n".encode())
    unread, called, last, due, ready = b"", False, 0.0, 0.0, []
    while awake not in ready:
        if time.monotonic() >= due:
            beat(nats, conn, "ready")
            last, due = time.monotonic(), time.monotonic() + every / 1000 * random.uniform(0.85, 0.95)
        ready = select.select([nats, awake], [], [], max(0, due - time.monotonic()))[0]
        if nats in ready:
            unread += (data := nats.recv(4096))
            if not data: raise ConnectionError("closed by the server")
        *lines, unread = unread.split(b"\r\n")
        for line in lines:
            spread = line or b"500"  # where this is the payload of a roll call: wait so many ms at most
            if called and len(spread) < 10 and spread.isdigit():  # and answer once a second at most
                due = min(due, max(last + 1, time.monotonic() + random.uniform(0, int(spread) / 1000)))
            elif line == b"PING": nats.sendall(b"PONG\r\n")
            called = line.startswith(b"MSG ") and not called  # its payload is the next line
    beat(nats, conn, "stopped")  # the goodbye
    nats.sendall(b"PING\r\n")
    while (data := nats.recv(4096)) and b"PONG" not in data: pass  # until the server has it

while True:
    try:
        with socket.create_connection((url.hostname, url.port or 4222), timeout=5) as nats:
            sys.exit(serve(nats))
    except (OSError, ValueError) as error:
        print("no connection to NATS, trying again:", error, file=sys.stderr)
    if select.select([awake], [], [], random.uniform(0.25, 0.75))[0]: sys.exit()  # 500 ms: rw
