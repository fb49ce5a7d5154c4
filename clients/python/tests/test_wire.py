"""The wire against the project's test vectors, and facts against their limits."""

import json
import os
import struct
import unittest
from typing import Any, Tuple

from hivebeat import _facts, _wire

VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 3, "testdata", "wire", "v1")


def unpack(data: bytes, at: int = 0) -> Tuple[Any, int]:
    """Reads the forms that pack writes."""
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    sizes = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD3: ">q", 0xCB: ">d"}
    if code in sizes:
        end = at + struct.calcsize(sizes[code])
        return struct.unpack(sizes[code], data[at:end])[0], end
    lengths = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I", 0xDC: ">H", 0xDE: ">H"}
    if code in lengths:
        end = at + struct.calcsize(lengths[code])
        (n,), at = struct.unpack(lengths[code], data[at:end]), end
    else:
        n = code & (0x1F if 0xA0 <= code < 0xC0 else 0x0F)
    if 0xC4 <= code <= 0xC6:
        return data[at : at + n], at + n
    if 0xA0 <= code < 0xC0 or 0xD9 <= code <= 0xDB:
        return data[at : at + n].decode(), at + n
    if 0x90 <= code < 0xA0 or code == 0xDC:
        items = []
        for _ in range(n):
            item, at = unpack(data, at)
            items.append(item)
        return items, at
    pairs = {}
    for _ in range(n):
        key, at = unpack(data, at)
        pairs[key], at = unpack(data, at)
    return pairs, at


class Pack(unittest.TestCase):
    def test_every_width(self) -> None:
        for value in (
            0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1, -1, 0.0, 0.5, 1.0, "", "x" * 31, "x" * 32, "x" * 255,
            "ä" * 200, b"", b"x" * 255, b"x" * 1024, [], ["x"] * 15, ["x"] * 16, {}, {str(i): i for i in range(15)}, {str(i): i for i in range(16)},
        ):  # fmt: skip
            with self.subTest(value=repr(value)[:40]):
                data = _wire.pack(value)
                got, end = unpack(data)
                self.assertEqual((got, end), (value, len(data)))
                self.assertIs(type(got), type(value))

    def test_the_shortest_form(self) -> None:
        for value, data in ((127, "7f"), (200, "ccc8"), (300, "cd012c"), ("ab", "a26162"), (b"a", "c40161"), ([1], "9101"), ({"a": 1}, "81a16101")):
            self.assertEqual(_wire.pack(value).hex(), data)


class Beat(unittest.TestCase):
    head = {
        "v": 1, "hive": "h", "worker": "w", "inc": 1, "every": 30000, "state": "ready", "reason": "", "quiet": 0, "pid": 7, "ns": "",
        "host": "m", "conn": "s/1", "rw": 250,
    }  # fmt: skip

    def test_order(self) -> None:
        facts = _facts.merge(
            {}, {"kv": 0.25, "done": 4, "kv_cap": 9, "ctx": 8, "engine": "e", "ver": "1", "data": b"d", "labels": {"b": "2", "a": "1"}, "model": "m"}
        )
        got, _ = unpack(_wire.beat(self.head, facts, 5, 6, 7))
        self.assertEqual(
            list(got),
            "v hive worker inc every state pid host conn rw model labels data engine ver ctx kv_cap seq sent vram busy queue done kv boot".split(),
        )
        self.assertEqual(list(got["labels"]), ["a", "b"])
        self.assertEqual((got["seq"], got["sent"], got["boot"], got["kv"], got["busy"]), (5, 6, 7, 0.25, 0))

    def test_only_the_end_changes(self) -> None:
        facts = _facts.merge({}, {"model": "m", "busy": 1})
        one, two = (_wire.beat(self.head, _facts.merge(facts, {"busy": n, "kv": 0.5}), n, n, n) for n in (1, 200))
        end = one.index(b"\xa3seq")
        self.assertEqual(one[:end], two[:end])

    def test_the_largest_fits(self) -> None:
        # Every other key has its greatest length, and the facts take what they may.
        head = dict(self.head, hive="h" * 64, worker="w" * 64, inc=_facts.MAX_INT, every=3_600_000, state="s" * 32, reason="r" * 256, quiet=600_000)
        head.update(pid=_facts.MAX_INT, ns="n" * 128, host="h" * 256, conn="c" * 128)
        n, facts = 0, {}
        given = {"gpus": ["g" * 64] * 64, "endpoint": "e" * 512, "model": "m" * 256, "ver": "v" * 64, "engine": "e" * 64, "kv": 1.0}
        given.update({key: _facts.MAX_INT for key in ("slots", "need", "ctx", "kv_cap", "vram", "busy", "queue", "done")})
        facts = _facts.merge({}, given)
        while n < 1024:
            try:
                facts = _facts.merge(facts, {"data": b"d" * (n + 1)})
            except ValueError:
                break
            n += 1
        size = len(_wire.beat(head, facts, _facts.MAX_INT, _facts.MAX_INT, _facts.MAX_INT))
        self.assertLessEqual(size, 8192)
        self.assertGreater(size, 6500)  # or the reserve is too large


class Payloads(unittest.TestCase):
    def test_spread(self) -> None:
        for payload, seconds in ((b"", 0.5), (b"0", 0), (b"250", 0.25), (b"999999999", 600)):
            self.assertEqual(_wire.parse_spread(payload), seconds, payload)
        for payload in (b"-1", b"1.5", b" 1", b"1\n", b"9999999999", b"soon", "١".encode()):
            self.assertIsNone(_wire.parse_spread(payload), payload)

    def test_notices(self) -> None:
        with open(os.path.join(VECTORS, "notices.json"), encoding="utf-8") as file:
            vectors = json.load(file)
        self.assertGreater(len(vectors), 5)
        for vector in vectors:
            notice = _wire.parse_notice(vector["payload"].encode())
            self.assertEqual(notice and notice._asdict(), vector.get("value"), vector["name"])


class Facts(unittest.TestCase):
    def test_the_program_keeps_its_own(self) -> None:
        labels, gpus = {"a": "1"}, ["GPU-1"]
        facts = _facts.merge({}, {"labels": labels, "gpus": gpus})
        labels["a"], gpus[0] = "2", "GPU-2"
        self.assertEqual(facts, {"labels": {"a": "1"}, "gpus": ["GPU-1"]})

    def test_none_removes(self) -> None:
        facts = _facts.merge({}, {"kv": 0.5, "model": "m"})
        self.assertEqual(_facts.merge(facts, {"kv": None, "need": None}), {"model": "m"})

    def test_other_numbers(self) -> None:
        class Index:
            def __index__(self) -> int:
                return 3

        self.assertEqual(_facts.merge({}, {"busy": Index(), "kv": 1}), {"busy": 3, "kv": 1.0})
        for bad in ({"busy": True}, {"kv": True}, {"kv": "1"}, {"busy": "1"}, {"model": 3}, {"labels": []}, {"data": "x"}, {"gpus": b"x"}):
            with self.assertRaisesRegex(TypeError, next(iter(bad))):
                _facts.merge({}, bad)
        for bad in ({"kv": float("nan")}, {"kv": -0.1}, {"labels": {"k" * 64: "v"}}, {"gpus": ["g" * 65]}, {"labels": {str(i): "" for i in range(33)}}):
            with self.assertRaisesRegex(ValueError, next(iter(bad))):
                _facts.merge({}, bad)

    def test_reasons_are_cut(self) -> None:
        self.assertEqual(_facts.clip_reason("x" * 256), "x" * 256)
        for long in ("x" * 257, "ä" * 300, "\ud800" * 300):
            cut = _facts.clip_reason(long)
            self.assertTrue(cut.endswith("…"), cut)
            self.assertLessEqual(len(cut.encode()), 256)
