"""URLs of servers, and what servers send."""

import unittest
from typing import List

from hivebeat._nats import Op, Parser, Pool, Server, parse_servers


class Servers(unittest.TestCase):
    def test_urls(self) -> None:
        for url, want in (
            ("nats://10.0.0.1", Server("10.0.0.1", 4222)),
            ("n1:4223", Server("n1", 4223)),
            ("nats://[::1]:4223", Server("::1", 4223)),
            ("tls://n1", Server("n1", 4222, tls=True)),
            ("nats://me:a%40b@n1", Server("n1", 4222, user="me", password="a@b")),
            ("nats://t%2Fk@n1", Server("n1", 4222, token="t/k")),
        ):
            self.assertEqual(parse_servers(url), [want], url)
        self.assertEqual([str(s) for s in parse_servers("nats://me:pw@n1, [::1]:1,")], ["nats://n1:4222", "nats://[::1]:1"])
        self.assertEqual([s.port for s in parse_servers(["a:1", "b:2"])], [1, 2])
        self.assertEqual(parse_servers("a", user="u", password="p")[0], Server("a", 4222, user="u", password="p"))

    def test_tls_of_one_is_tls_of_all(self) -> None:
        self.assertEqual([s.tls for s in parse_servers("nats://a,tls://b")], [True, True])
        self.assertEqual([s.tls for s in parse_servers("nats://a", tls=True)], [True])

    def test_bad_urls_show_no_secrets(self) -> None:
        for url in ("", " , ", "http://me:secret@a", "me:secret@", "nats://me:secret@a:port", "nats://me:sec/secret@a", "nats://a/path", "nats://a:99999"):
            with self.assertRaisesRegex(ValueError, "^nats: ") as caught:
                parse_servers(url)
            self.assertNotIn("sec", str(caught.exception))

    def test_pool(self) -> None:
        pool = Pool(parse_servers("tls://me:pw@n1"), lambda servers: None)
        first = pool.next()
        pool.learn(first, {"connect_urls": ["10.0.0.2:4222", "n3:4222", "n1:4222", "[bad", ""]})
        pool.learn(first, {"connect_urls": ["10.0.0.2:4222"]})
        self.assertEqual(len(pool), 3)
        second, third = pool.next(), pool.next()
        self.assertEqual(second, Server("10.0.0.2", 4222, True, "n1", "me", "pw"))
        self.assertEqual(third, Server("n3", 4222, True, "", "me", "pw"))
        self.assertEqual(pool.next(), first)


class Parsing(unittest.TestCase):
    stream = (
        b'INFO {"server_id":"S"} \r\nPING\r\n+OK\r\nMSG hive.a.rollcall 1 3\r\n500\r\nMSG hive.a.rollcall 1 reply 0\r\n\r\n'
        b"HMSG hive.a.rollcall 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\nMSG a 1 9\r\nPING\r\n\x00\xff!\r\n-ERR 'no'\r\npong\r\n"
    )
    ops = [
        Op("INFO", '{"server_id":"S"}'), Op("PING"), Op("+OK"), Op("MSG", "", b"500"), Op("MSG", "", b""),
        Op("MSG", "", b"", b"NATS/1.0 503\r\n\r\n"), Op("MSG", "", b"PING\r\n\x00\xff!"), Op("-ERR", "'no'"), Op("PONG"),
    ]  # fmt: skip

    def test_at_once_and_in_parts(self) -> None:
        for size in (1, 2, 3, 7, 10_000):
            parser, ops = Parser(), []  # type: ignore[var-annotated]
            for at in range(0, len(self.stream), size):
                ops += parser.feed(self.stream[at : at + size])
            self.assertEqual(ops, self.ops, f"in parts of {size}")

    def test_what_is_not_nats(self) -> None:
        bad: List[bytes] = [b"HTTP/1.1 400 Bad Request\r\n", b"MSG a 1 x\r\n", b"MSG\r\n", b"MSG a 1 -1\r\n", b"HMSG a 1 5 3\r\n", b"x" * (2 << 20)]
        for data in bad:
            with self.assertRaises(ValueError, msg=data[:20]):
                Parser().feed(data)
