"""The facts that a program reports about its worker, and the limits of the wire on them."""

from __future__ import annotations

import math
import operator
import re
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, TypedDict

MAX_INT = (1 << 53) - 1  # above it a reader of JSON would see another number
MAX_QUIET = 600_000  # ms of announced silence
MAX_REASON = 256  # bytes

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Facts(TypedDict, total=False):
    """What a worker reports about itself, besides its state. None removes a fact."""

    model: Optional[str]  # the model it serves; 256 bytes
    endpoint: Optional[str]  # where, a URL; 512 bytes
    gpus: Optional[Sequence[str]]  # UUIDs of the GPUs it uses; 64, each of 64 bytes
    slots: Optional[int]  # requests it can serve at once
    need: Optional[int]  # bytes of GPU memory that it will hold once it has loaded
    labels: Optional[Mapping[str, str]]  # 32, with keys of 63 bytes and values of 128
    data: Optional[bytes]  # opaque, passed on unchanged; 1 KiB
    ver: Optional[str]  # version of the engine; 64 bytes
    engine: Optional[str]  # name of the engine, such as vllm; 64 bytes
    ctx: Optional[int]  # tokens of context that one request may have
    kv_cap: Optional[int]  # tokens that the KV cache holds
    vram: Optional[int]  # bytes of GPU memory that it holds
    busy: Optional[int]  # slots in use
    queue: Optional[int]  # requests waiting
    done: Optional[int]  # work finished so far; only grows
    tokens: Optional[int]  # tokens generated so far; only grows
    kv: Optional[float]  # the used part of the KV cache, 0 to 1


def check_id(field: str, value: Any) -> str:
    """Returns value if it is an id; otherwise the error names the field and quotes the value."""
    if not isinstance(value, str):
        raise TypeError(f"{field}: a str is required, not {type(value).__name__}")
    if not _ID.fullmatch(value):
        raise ValueError(f"{field}: {value[:80]!r} is not an id: 1 to 64 of A-Z a-z 0-9 _ -")
    return value


def check_text(field: str, value: Any, most: int) -> str:
    """Returns value if it is text of at most so many bytes of UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"{field}: a str is required, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{field}: {value[:40]!r} cannot be encoded in UTF-8") from None
    if size > most:
        raise ValueError(f"{field}: {value[:40]!r}… has {size} bytes, at most {most} are allowed")
    return value


def check_uint(field: str, value: Any) -> int:
    """Returns value as an int if it is a whole number that the wire can hold."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # takes the integers of numpy too
    except TypeError:
        raise TypeError(f"{field}: an int is required, not {type(value).__name__}") from None
    if not 0 <= number <= MAX_INT:
        raise ValueError(f"{field}: {number} is not between 0 and {MAX_INT}")
    return number


def check_part(field: str, value: Any) -> float:
    """Returns value as a float if it is a number from 0 to 1."""
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        number = float(value)
    except TypeError:
        raise TypeError(f"{field}: a float is required, not {type(value).__name__}") from None
    if not math.isfinite(number) or not 0 <= number <= 1:
        raise ValueError(f"{field}: {number} is not between 0 and 1")
    return number


def _check_gpus(field: str, value: Any) -> "list[str]":
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TypeError(f"{field}: a list of str is required, not {type(value).__name__}")
    if len(value) > 64:
        raise ValueError(f"{field}: {len(value)} of them, at most 64 are allowed")
    return [check_text(field, one, 64) for one in value]


def _check_labels(field: str, value: Any) -> "dict[str, str]":
    if not isinstance(value, Mapping):
        raise TypeError(f"{field}: a dict is required, not {type(value).__name__}")
    if len(value) > 32:
        raise ValueError(f"{field}: {len(value)} of them, at most 32 are allowed")
    checked = {check_text(field, key, 63): check_text(field, text, 128) for key, text in value.items()}
    return dict(sorted(checked.items()))  # equal labels are equal bytes


def _check_data(field: str, value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{field}: bytes are required, not {type(value).__name__}")
    data = bytes(value)
    if len(data) > 1024:
        raise ValueError(f"{field}: {len(data)} bytes, at most 1024 are allowed")
    return data


def _text(most: int) -> Callable[[str, Any], str]:
    return lambda field, value: check_text(field, value, most)


# The facts in the order of the wire. The stable ones usually stay the same within an
# incarnation and stand before seq; the volatile ones stand after it.
STABLE: Dict[str, Callable[[str, Any], Any]] = {
    "model": _text(256),
    "endpoint": _text(512),
    "gpus": _check_gpus,
    "slots": check_uint,
    "need": check_uint,
    "labels": _check_labels,
    "data": _check_data,
    "engine": _text(64),
    "ver": _text(64),
    "ctx": check_uint,
    "kv_cap": check_uint,
}
VOLATILE: Dict[str, Callable[[str, Any], Any]] = {
    "vram": check_uint,
    "busy": check_uint,
    "queue": check_uint,
    "done": check_uint,
    "tokens": check_uint,
    "kv": check_part,
}
_CHECKS = {**STABLE, **VOLATILE}

# What the facts may take of a beat whose other keys all have their greatest length, so that
# whether facts are valid depends on nothing else.
_ROOM = 8192 - 1536


def merge(old: Mapping[str, Any], given: Mapping[str, Any]) -> "dict[str, Any]":
    """Returns the facts old with those given, checked and copied. An error changes nothing."""
    merged = dict(old)
    for field, value in given.items():
        check = _CHECKS.get(field)
        if check is None:
            raise TypeError(f"{field!r} is not a fact; the facts are {', '.join(_CHECKS)}")
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = check(field, value)
    room = sum(_size(value) for value in merged.values())
    if room > _ROOM:
        raise ValueError(f"facts: {room} bytes in all, at most {_ROOM} fit a beat ({', '.join(given)} given last)")
    return merged


def _size(value: Any) -> int:
    """Returns at least as many bytes as value takes in a beat, without its key."""
    if isinstance(value, str):
        return 3 + len(value.encode())
    if isinstance(value, bytes):
        return 3 + len(value)
    if isinstance(value, list):
        return 3 + sum(_size(one) for one in value)
    if isinstance(value, dict):
        return 3 + sum(_size(key) + _size(text) for key, text in value.items())
    return 9


def check_state(value: Any) -> str:
    """Returns value if a program may set it as a state."""
    check_text("state", value, 32)
    if not value:
        raise ValueError("state: it is empty")
    if value in ("stopped", "failed"):
        raise ValueError(f"state: {value} is a goodbye; call stop() or failed() instead")
    return str(value)


def clip_reason(value: Any) -> str:
    """Returns a reason cut to 256 bytes: it is text for people, often that of an exception."""
    if not isinstance(value, str):
        raise TypeError(f"reason: a str is required, not {type(value).__name__}")
    raw = value.encode("utf-8", "replace")
    if len(raw) <= MAX_REASON:
        return raw.decode()
    return raw[: MAX_REASON - 3].decode("utf-8", "ignore") + "…"


def same_state(old: str, new: str) -> bool:
    """Reports whether the change is no transition: ready and busy change with every request."""
    serving = ("ready", "busy")
    return old == new or (old in serving and new in serving)
