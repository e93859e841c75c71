"""Something that answers as the agent's admin address does, with documents that a test makes up: for the status page's tests.

`Story` tells what an agent in some state would say, second by second: counters that grow, accounts that add up.
"""

import base64
import hashlib
import http.server
import json
import math
import pathlib
import random
import re
import time

import loopback

PAGE = pathlib.Path(__file__).resolve().parents[2] / "Sources/Admin/Page/status.html"
BOUNDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]


def policy(text):
    """The header that allows the page's one script and one style by their hashes, and no sink of HTML at all."""

    def hashes(tag):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in found)

    return (
        f"default-src 'none'; style-src {hashes('style')}; script-src {hashes('script')}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


# The header that the agent sends, if it does not send hashes.
LOOSE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def amount(records, size):
    return {"records": int(records), "bytes": int(records) * size}


class Story:
    """What an agent says `age` seconds after it started, and `speed` times as fast."""

    def __init__(self, *, shards=4, records=9000, state="delivering", age=3600, size=223, host="gw-1", skew=1.0, seed=7):
        self.shards, self.records, self.state, self.age, self.size, self.host = shards, records, state, age, size, host
        self.began = time.time()
        self.weights = [random.Random(f"{seed} {index}").random() ** skew for index in range(shards)]
        self.throttled, self.failed = set(), set()
        self.spool, self.files, self.datagrams, self.streams, self.dead, self.log = True, True, False, False, 0, []
        self.failing_since = age - 200
        self.process = 1234

    def latency(self, seconds, calls):
        """A histogram around a median of `seconds`."""
        counts, below = [], 0
        for bound in BOUNDS:
            below = calls / (1 + math.exp(-3 * math.log(bound / seconds)))
            counts.append({"le": bound, "count": int(below)})
        return {"buckets": counts, "count": int(calls), "sum": round(calls * seconds * 1.1, 3)}

    def document(self):
        now = time.time()
        up = self.age + now - self.began
        fails, starts = self.state == "failing", self.state == "starting"
        read = 0 if starts else self.records * up
        spooled = self.records * (up - self.failing_since) if fails else 0
        flight = 0 if starts else min(read, self.records * 0.1)
        dropped = 40 * up if self.datagrams else 0
        delivered = int(read) - int(spooled) - int(flight) - int(dropped) - self.dead
        total = sum(self.weights) or 1
        aggregates = delivered / 230
        inputs = []
        if self.files:
            inputs.append({
                "name": "app", "type": "file", "read": amount(int(read), self.size), "carried_over": amount(0, 1),
                "delivered": amount(delivered, self.size), "in_flight": amount(int(flight), self.size), "spooled": amount(int(spooled), self.size),
                "dead_lettered": amount(self.dead, self.size), "dropped": amount(int(dropped), self.size),
            })
        if self.datagrams:
            there = amount(2000 * up, 180)
            none = amount(0, 1)
            inputs.append({
                "name": "syslog", "type": "syslog", "read": there, "carried_over": none, "delivered": there, "in_flight": none,
                "spooled": none, "dead_lettered": none, "dropped": none,
            })
        return {
            "version": "0.9.0", "host": self.host, "process": self.process, "started": stamp(self.began - self.age), "time": stamp(now),
            "uptime_seconds": round(up, 3), "state": self.state, "ready": self.state == "delivering", "cpu_seconds": round(up * 0.031, 3),
            "memory": {
                "resident_bytes": 41_000_000 + int(2e6 * math.sin(up / 9)), "limit_bytes": 268435456,
                "aggregates_bytes": 0 if starts else min(190_000_000, 60_000 * self.shards), "aggregates_limit_bytes": 200_000_000,
            },
            "oldest_undelivered_seconds": up - self.failing_since if fails else 0.0 if starts else 0.12,
            "inputs": inputs,
            "files": {
                "open": 3 if self.files else 0, "read_bytes": int(read) * self.size, "behind_bytes": 52_000_000 if self.files else 0, "rotated": 12,
                "truncated": 0, "lines_oversize": 0, "bytes_truncated": 0, "bytes_lost": 0, "errors": 0,
                "furthest_behind": self.behind(up) if self.files else [],
            },
            "datagrams": [{
                "input": "syslog", "address": "udp://0.0.0.0:514", "received": int(2000 * up), "bytes": int(2000 * up) * 180, "empty": 2,
                "parsed": int(1990 * up), "unparsed": int(10 * up), "oversize": 0, "truncated": 0, "dropped_by_kernel": int(40 * up),
                "dropped_by_policy": 17, "bytes_dropped": 3060, "held_back_seconds": 0.0, "errors": 0,
            }] if self.datagrams else [],
            "streams": [{
                "input": "devices", "open": 812, "connections": 90_210, "refused": 3, "bytes": int(310_000 * up), "records": int(1200 * up),
                "parsed": 0, "unparsed": 0, "objects_truncated": 0, "oversize": 1, "bytes_truncated": 0, "unfinished": 12, "broken": 4,
                "bytes_discarded": 0, "overfull": 0, "idle": 61, "handshakes_failed": 9, "handshakes_timed_out": 0, "accept_pauses": 0,
                "held_back_seconds": 12.5, "lost": 0,
            }] if self.streams else [],
            "output": {
                "name": "stream", "stream": "app-logs", "region": "eu-west-1", "endpoint": "https://kinesis.eu-west-1.amazonaws.com",
                "wire": "cbor", "failing_seconds": round(up - self.failing_since, 1) if fails else None,
                "last_failure": "connect: connection timed out" if fails else None, "records": int(read), "bytes": int(read) * self.size,
                "aggregates": int(aggregates), "calls": int(aggregates / 20), "records_delivered": delivered,
                "bytes_delivered": delivered * self.size, "aggregates_delivered": int(aggregates),
                "aggregates_spooled": int(spooled / 230), "retried": 0, "throttled": int(up * 2 * len(self.throttled)), "calls_failed": 0,
                "duplicates_possible": 0, "misplaced": 0, "keyless": 0, "calls_in_flight": 0 if starts else 3, "calls_allowed": 24,
                "queued_bytes": 0 if starts else 310_000, "rate_bytes_per_second": self.shards * 1048576, "is_rate_limited": bool(self.throttled),
                "errors": [{"code": "ProvisionedThroughputExceededException", "count": int(up * 2 * len(self.throttled))}] if self.throttled else [],
            },
            "shard_limits": {"bytes_per_second": 1048576, "records_per_second": 1000},
            "shards": [] if starts else [self.shard(index, weight / total, up, delivered) for index, weight in enumerate(self.weights)],
            "shards_left_out": 0,
            "latency": {"delivery_seconds": self.latency(0.14, aggregates), "call_seconds": self.latency(0.03, aggregates / 20)},
            "spool": {
                "on": True, "bytes": int(spooled) * self.size, "owed_bytes": int(spooled) * self.size,
                "room_bytes": 10_000_000_000 - int(spooled) * self.size, "max_bytes": 10737418240,
                "oldest_seconds": up - self.failing_since if fails else None,
            } if self.spool else {"on": False, "bytes": 0, "owed_bytes": 0, "room_bytes": 0, "max_bytes": 0, "oldest_seconds": None},
            "log": self.log,
        }

    def behind(self, up):
        lag = max(0, 52_000_000 - int(400_000 * (time.time() - self.began)))
        return [
            {"input": "app", "path": path, "size_bytes": size, "read_bytes": size - late, "delivered_bytes": size - late, "lag_bytes": late}
            for path, size, late in [
                ("/var/log/app/orders-api.log", 731_204_551, lag), ("/var/log/app/checkout/worker-3.log", 12_400_212, 4_213),
                ("/var/log/app/access.log", 98_221_000 + int(up * 1000), 0),
            ]
        ]

    def shard(self, index, share, up, delivered):
        width = 2**128 // self.shards
        return {
            "id": f"shardId-{index:012d}", "first_hash_key": str(index * width), "last_hash_key": str((index + 1) * width - 1),
            "records": int(delivered / 230 * share), "bytes": int(delivered * self.size * share), "throttled": int(up * 2) if index in self.throttled else 0,
            "failed": int(up) if index in self.failed else 0, "queued_bytes": int(share * 300_000), "cooling_seconds": 0.4 if index in self.throttled else None,
        }


class StatusServer:
    """Serves the page and a story's documents on loopback; can go away and come back at the same port."""

    def __init__(self, story, token=None, header=None):
        self.story, self.token = story, token
        self.page = PAGE.read_bytes()
        self.header = header or policy(self.page.decode())
        self.seen = []
        self.answer = None
        self.port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/"

    def start(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = self.path.partition("?")[0]
                outer.seen.append((path, self.headers.get("Authorization")))
                if path == "/":
                    self.reply(200, outer.page, "text/html; charset=utf-8", {"Content-Security-Policy": outer.header})
                elif path == "/status":
                    if outer.token and self.headers.get("Authorization") != f"Bearer {outer.token}":
                        self.reply(401, b"needs a token\n", "text/plain")
                    elif outer.answer:
                        self.reply(*outer.answer)
                    else:
                        self.reply(200, json.dumps(outer.story.document()).encode(), "application/json")
                else:
                    self.reply(404, b"nothing here\n", "text/plain")

            def reply(self, status, body, kind, headers={}):
                self.send_response(status)
                for name, value in ({"Content-Type": kind, "Content-Length": len(body), "X-Content-Type-Options": "nosniff"} | headers).items():
                    self.send_header(name, str(value))
                # So that nothing is left of it when it goes away.
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *words):
                pass

        self.listener = loopback.Listener(Handler, self.port)
        self.port = self.listener.port

    def stop(self):
        self.listener.stop()
        self.listener.server_close()
