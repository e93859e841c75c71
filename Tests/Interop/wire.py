"""A small server that stands for Kinesis, keeps every request as it came over the wire, and answers as a test says."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import base64
import socket
import struct
import threading
import time

import cbor2
import loopback
import oracle
from aws_kinesis_agg.deaggregator import iter_deaggregate_records

CBOR, JSON = "application/x-amz-cbor-1.1", "application/x-amz-json-1.1"
SHARDS = 4
_WIDTH = (1 << 128) // SHARDS


@dataclasses.dataclass
class Request:
    # Which connection, and the how-manieth request on it.
    connection: int
    number: int
    method: str
    path: str
    # As they came, in order.
    headers: list
    body: bytes
    time: float

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def operation(self):
        return self.header("X-Amz-Target").removeprefix("Kinesis_20131202.")

    @property
    def is_cbor(self):
        return self.header("Content-Type") == CBOR

    @property
    def value(self):
        return self.decoded(self.body)

    def decoded(self, body):
        """A body in the request's own form, as a value."""
        return cbor2.loads(body) if self.is_cbor else json.loads(body)

    def encoded(self, value):
        return cbor2.dumps(value) if self.is_cbor else json.dumps(value).encode()

    @property
    def records(self):
        """The records of PutRecords, data as bytes."""
        return [
            record | ({} if self.is_cbor else {"Data": base64.b64decode(record["Data"], validate=True)})
            for record in self.value["Records"]
        ]


def user_data(records):
    """The data of the user records in Kinesis records, in order."""
    found = []
    for record in records:
        boto = {"SequenceNumber": "1", "ApproximateArrivalTimestamp": 0} | record
        for user in iter_deaggregate_records([boto], data_format="Boto3"):
            user = user["kinesis"]
            found.append(base64.b64decode(user["data"]) if user.get("aggregated") else user["data"])
    return found


class Raw:
    """An answer that is no Kinesis answer: any status, type and body."""

    def __init__(self, status, body=b"", content_type="text/html", **headers):
        self.status, self.body, self.headers = status, body, {"Content-Type": content_type} | headers


class Hang:
    """No answer for so many seconds; then the connection ends."""

    def __init__(self, seconds):
        self.seconds = seconds


class Reset:
    """The connection is reset after the request was read."""


def error(request, status, code, message=""):
    body = {"__type": code, "message": message}
    return Raw(status, request.encoded(body), CBOR if request.is_cbor else JSON)


class FakeKinesis:
    """`script` holds the answers to the next PutRecords: each a Raw, Hang, Reset, or a function of the request and the
    usual answer. When it is empty everything is stored."""

    def __init__(self):
        self.requests = []
        self.script = []
        # Records that were acknowledged, in order.
        self.stored = []
        self._lock = threading.Lock()
        self._connections = 0
        self._closing = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def setup(self):
                super().setup()
                with owner._lock:
                    owner._connections += 1
                    self.connection_number = owner._connections
                self.count = 0

            def do_POST(self):
                length = self.headers["Content-Length"]
                body = self.rfile.read(int(length)) if length else b""
                self.count += 1
                request = Request(
                    self.connection_number, self.count, self.command, self.path, list(self.headers.items()), body,
                    time.monotonic(),
                )
                answer = owner._answer(request)
                if isinstance(answer, Hang):
                    owner._closing.wait(answer.seconds)
                    self.close_connection = True
                elif isinstance(answer, Reset):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)

            def finish(self):
                with contextlib.suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, *_):
                pass

        self._server = loopback.Listener(Handler)
        self.url = self._server.url

    def stop(self):
        self._closing.set()
        self._server.stop()

    def puts(self):
        with self._lock:
            return [request for request in self.requests if request.operation == "PutRecords"]

    def _answer(self, request):
        with self._lock:
            self.requests.append(request)
            if request.operation == "ListShards":
                return self._encoded(request, {"Shards": [self._shard(number) for number in range(SHARDS)]})
            if request.operation != "PutRecords":
                return error(request, 400, "UnknownOperationException")
            results = [self._result(record) for record in request.records]
            answer = {"FailedRecordCount": 0, "EncryptionType": "NONE", "Records": results}
            if self.script:
                step = self.script.pop(0)
                if callable(step):
                    answer = step(request, answer)
                else:
                    answer = step
            if not isinstance(answer, dict):
                return answer
            if len(answer.get("Records", [])) == len(request.records):
                for record, result in zip(request.records, answer["Records"]):
                    if "ErrorCode" not in result:
                        self.stored.append(record)
            return self._encoded(request, answer)

    @staticmethod
    def _encoded(request, value):
        return Raw(200, request.encoded(value), CBOR if request.is_cbor else JSON)

    @staticmethod
    def _shard(number):
        return {
            "ShardId": f"shardId-{number:012}",
            "HashKeyRange": {
                "StartingHashKey": str(number * _WIDTH), "EndingHashKey": str((number + 1) * _WIDTH - 1),
            },
            "SequenceNumberRange": {"StartingSequenceNumber": "49" + "0" * 54},
        }

    def _result(self, record):
        explicit = record.get("ExplicitHashKey")
        hashed = int(explicit) if explicit else int(hashlib.md5(record["PartitionKey"].encode()).hexdigest(), 16)
        return {"SequenceNumber": f"49{len(self.requests):054}", "ShardId": f"shardId-{hashed // _WIDTH:012}"}


class TimedKinesis(FakeKinesis):
    """Notes when each of the oracle's lines was stored; with `is_down` it answers like a service that is not there."""

    def __init__(self):
        self.is_down = False
        self.arrivals = []
        self.corrupted = []
        self._order = threading.Lock()
        super().__init__()

    def _answer(self, request):
        if self.is_down:
            return Raw(503, b"down")
        with self._order:
            before = len(self.stored)
            answer = super()._answer(request)
            # The answer is not sent yet: whoever knows of it came later.
            now = time.monotonic()
            for data in user_data(self.stored[before:]):
                line = oracle.parse(data)
                if line is None:
                    self.corrupted.append(data[:100])
                else:
                    self.arrivals.append((now, line[1]))
        return answer

    def numbers(self):
        """The lines that have arrived."""
        with self._order:
            return {number for _, number in self.arrivals}

    def lines(self):
        return len(self.numbers())

    def clear(self):
        with self._order, self._lock:
            for held in (self.arrivals, self.corrupted, self.requests, self.stored):
                held.clear()
