"""The wire: msgpack for beats, and the payloads on the subject of roll calls."""

from __future__ import annotations

import re
import struct
from typing import Any, Mapping, NamedTuple, Optional

from ._facts import MAX_INT, STABLE, VOLATILE


def pack(value: Any) -> bytes:
    """Returns the msgpack of value, each part in the shortest form that msgpack has for it."""
    if isinstance(value, int):
        return _pack_int(value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, str):
        raw = value.encode()
        if len(raw) < 32:
            return struct.pack(">B", 0xA0 | len(raw)) + raw
        return _header(len(raw), (0xD9, 0xDA, 0xDB)) + raw
    if isinstance(value, bytes):
        return _header(len(value), (0xC4, 0xC5, 0xC6)) + value
    if isinstance(value, list):
        head = struct.pack(">B", 0x90 | len(value)) if len(value) < 16 else struct.pack(">BH", 0xDC, len(value))
        return head + b"".join(map(pack, value))
    if isinstance(value, dict):
        head = struct.pack(">B", 0x80 | len(value)) if len(value) < 16 else struct.pack(">BH", 0xDE, len(value))
        return head + b"".join(pack(key) + pack(item) for key, item in value.items())
    raise TypeError(f"{type(value).__name__} has no form on the wire")


def _pack_int(value: int) -> bytes:
    if value < 0:
        return struct.pack(">Bq", 0xD3, value)
    if value < 0x80:
        return struct.pack(">B", value)
    if value <= 0xFF:
        return struct.pack(">BB", 0xCC, value)
    if value <= 0xFFFF:
        return struct.pack(">BH", 0xCD, value)
    if value <= 0xFFFF_FFFF:
        return struct.pack(">BI", 0xCE, value)
    return struct.pack(">BQ", 0xCF, value)


def _header(size: int, codes: "tuple[int, int, int]") -> bytes:
    if size <= 0xFF:
        return struct.pack(">BB", codes[0], size)
    if size <= 0xFFFF:
        return struct.pack(">BH", codes[1], size)
    return struct.pack(">BI", codes[2], size)


def beat(head: Mapping[str, Any], facts: Mapping[str, Any], seq: int, sent: int, boot: int) -> bytes:
    """Returns a beat with its keys in the order of the wire.

    head has the keys from v to rw, in their order. Keys that are empty are left out, except the
    volatile ones, so that most beats repeat the bytes before seq.
    """
    keys = {key: value for key, value in head.items() if value}
    keys.update((key, facts[key]) for key in STABLE if facts.get(key))
    keys.update(seq=seq, sent=sent)
    keys.update((key, facts.get(key, 0)) for key in VOLATILE if key not in ("tokens", "kv"))
    if facts.get("tokens"):
        keys["tokens"] = facts["tokens"]
    if "kv" in facts:  # absent means unknown, and 0 means empty
        keys["kv"] = facts["kv"]
    if boot:
        keys["boot"] = boot
    return pack(keys)


def parse_spread(payload: bytes) -> Optional[float]:
    """Returns the spread of a roll call in seconds, or None if payload is not a roll call."""
    if not payload:
        return 0.5
    if not re.fullmatch(rb"[0-9]{1,9}", payload):
        return None
    return min(int(payload) / 1000, 600.0)


class Notice(NamedTuple):
    """A notice that beats are refused, because another process uses the id."""

    id: str
    inc: int
    believed: int


def parse_notice(payload: bytes) -> Optional[Notice]:
    """Returns the notice in payload, or None if it is not one."""
    match = re.fullmatch(rb"refused ([A-Za-z0-9_-]{1,64}) ([0-9]{1,16}) ([0-9]{1,16})", payload)
    if not match:
        return None
    notice = Notice(match[1].decode(), int(match[2]), int(match[3]))
    return notice if 0 < notice.inc <= MAX_INT and 0 < notice.believed <= MAX_INT else None
