"""Facts about this process and its machine that the hive uses to watch it."""

from __future__ import annotations

import os
import re
import socket
import time


def namespace(proc: str = "/proc") -> str:
    """Returns where a process id of this process is valid: "<boot id>/<pid namespace>".

    It is empty if the system does not show both. Then no hive looks the pid up.
    """
    try:
        with open(f"{proc}/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        link = os.readlink(f"{proc}/self/ns/pid")  # pid:[4026531836]
    except (OSError, ValueError):
        return ""
    inode = re.fullmatch(r"pid:\[([0-9]+)\]", link)
    if not inode or not boot or len(boot) > 64:
        return ""
    return f"{boot}/{inode[1]}"


def boot_clock() -> int:
    """Returns the boot clock of the machine in ms, or 0 on a system without one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        return 0
    try:
        return time.clock_gettime_ns(clock) // 1_000_000
    except OSError:
        return 0


def host_name() -> str:
    """Returns the host name, cut to what a beat may hold."""
    try:
        return socket.gethostname().encode("utf-8", "replace")[:256].decode("utf-8", "ignore")
    except OSError:
        return ""
