"""A proxy between the agent and Kinesis that lets calls fail in every way that a network and a service know.

A fault is a function of an `Exchange`: one call in its hands. What was stored although the agent was not told so, the
proxy notes by itself, whatever the fault did; those lines may come twice.
"""

import collections
import contextlib
import http.client
import http.server
import select
import socket
import struct
import threading
import time
import urllib.parse

import loopback
import oracle
import wire

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
REFUSALS = ["ProvisionedThroughputExceededException"] * 3 + ["InternalFailure"]


class Gone(Exception):
    """The agent has closed the connection."""


def _has_hung_up(connection):
    """Whether the other side has closed the connection."""
    try:
        return bool(select.select([connection], [], [], 0)[0]) and connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


class Exchange:
    """A call from the agent, until it has an answer or never gets one."""

    def __init__(self, handler, request, forward, chance):
        self.request, self.chance = request, chance
        self._handler, self._forward = handler, forward
        self.is_put = request.operation == "PutRecords"
        # Records that Kinesis has stored, and whether the agent was told so, all of it and in time.
        self.stored = []
        self.is_told = False
        self.began = time.monotonic()
        # When the agent could first know that this call told it nothing.
        self.failed = None

    def pass_on(self, kept=None):
        """Forwards the call, or only the records at the indices `kept`; returns status, type and body of the answer."""
        body = self.request.body
        if kept is not None:
            value = self.request.value
            value["Records"] = [value["Records"][index] for index in kept]
            body = self._encoded(value)
        status, content_type, body = self._forward(self.request, body)
        if self.is_put and status == 200:
            records = self.request.records
            records = records if kept is None else [records[index] for index in kept]
            results = self.read(body)["Records"]
            self.stored += [record for record, result in zip(records, results, strict=True) if "ErrorCode" not in result]
        return status, content_type, body

    def read(self, body):
        return self.request.decoded(body)

    def _encoded(self, value):
        return self.request.encoded(value)

    # How it can end

    def answer(self, status, content_type, body, true=False, cut=None):
        """Answers; with `cut`, only so many bytes of the body come, and then the connection ends."""
        handler = self._handler
        if not true:
            self._fails()
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:cut])
        handler.wfile.flush()
        if cut is not None:
            handler.close_connection = True
        self.is_told = true

    def answer_value(self, value, true=False):
        self.answer(200, wire.CBOR if self.request.is_cbor else wire.JSON, self._encoded(value), true)

    def refuse(self, status, code):
        refusal = wire.error(self.request, status, code, "injected")
        self.answer(status, refusal.headers["Content-Type"], refusal.body)

    def _fails(self):
        self.failed = self.failed or time.monotonic()

    def reset(self):
        handler = self._handler
        self._fails()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    def wait(self, seconds):
        """Lets time pass; ends the exchange if the agent goes away meanwhile."""
        if select.select([self._handler.connection], [], [], seconds)[0]:
            raise Gone


# The faults


def none(exchange):
    exchange.answer(*exchange.pass_on(), true=True)


def reset_before_storing(exchange):
    exchange.reset()


def reset_after_storing(exchange):
    exchange.pass_on()
    exchange.reset()


def silence(exchange):
    exchange.wait(10)
    exchange.reset()


def silence_after_storing(exchange):
    exchange.pass_on()
    exchange.wait(10)
    exchange.reset()


def bad_gateway(exchange):
    exchange.answer(exchange.chance.choice([500, 502, 503]), "text/html", HTML)


def bad_gateway_after_storing(exchange):
    exchange.pass_on()
    exchange.answer(500, "text/html", HTML)


def internal_failure_after_storing(exchange):
    exchange.pass_on()
    exchange.refuse(500, "InternalFailure")


def refused_call(exchange):
    exchange.refuse(400, "ProvisionedThroughputExceededException" if exchange.is_put else "LimitExceededException")


def refused_records(exchange):
    """Some of the records, or all, are refused; only the others reach Kinesis."""
    if not exchange.is_put:
        return refused_call(exchange)
    chance, count = exchange.chance, len(exchange.request.records)
    share = chance.choice([0.1, 0.5, 1])
    kept = [index for index in range(count) if chance.random() >= share]
    if len(kept) == count:
        del kept[chance.randrange(count)]
    results = [
        {"ErrorCode": (code := chance.choice(REFUSALS)), "ErrorMessage": f"{code}: injected"} for _ in range(count)
    ]
    answer = {"EncryptionType": "NONE"}
    if kept:
        status, content_type, body = exchange.pass_on(kept)
        if status != 200:
            return exchange.answer(status, content_type, body)
        answer = exchange.read(body)
        for index, result in zip(kept, answer["Records"], strict=True):
            results[index] = result
    answer |= {"FailedRecordCount": sum("ErrorCode" in result for result in results), "Records": results}
    exchange.answer_value(answer, true=True)


def answer_cut_short(exchange):
    """The connection ends in the middle of the answer."""
    status, content_type, body = exchange.pass_on()
    exchange.answer(status, content_type, body, cut=exchange.chance.randrange(len(body)))


def half_an_answer(exchange):
    """The answer's length is right, and yet it is only the beginning of one."""
    status, content_type, body = exchange.pass_on()
    exchange.answer(status, content_type, body[: exchange.chance.randrange(len(body))])


def wrong_number_of_results(exchange):
    status, content_type, body = exchange.pass_on()
    if status != 200:
        return exchange.answer(status, content_type, body)
    value = exchange.read(body)
    results = value["Records"] if exchange.is_put else value["Shards"]
    if exchange.chance.random() < 0.5:
        results.pop(exchange.chance.randrange(len(results)))
    else:
        results.append(results[0])
    exchange.answer_value(value)


def slow_request(exchange):
    exchange.wait(exchange.chance.uniform(0.05, 0.6))
    none(exchange)


def slow_answer(exchange):
    answer = exchange.pass_on()
    exchange.wait(exchange.chance.uniform(0.05, 0.6))
    exchange.answer(*answer, true=True)


FAULTS = [
    reset_before_storing, reset_after_storing, silence, silence_after_storing, bad_gateway, bad_gateway_after_storing,
    internal_failure_after_storing, refused_call, refused_records, refused_records, answer_cut_short, half_an_answer,
    wrong_number_of_results, slow_request, slow_answer,
]
# A list of shards with a shard too few or twice would be another stream.
_ON_LISTS = [fault for fault in FAULTS if fault is not wrong_number_of_results]


class FaultyKinesis:
    """A Kinesis that fails now and then: passes calls on to a good one.

    `likelihood` is a call's, from 0 to 1. What a call stored without the agent's knowledge is handed to `may_repeat`, line
    by line as (source, number). The agent waits `timeout` seconds for an answer; one that took a third of it may have come too
    late.
    """

    def __init__(self, url, chance, may_repeat, timeout):
        self._behind = urllib.parse.urlsplit(url).netloc
        self._chance, self._may_repeat = chance, may_repeat
        # The agent's wait begins before the call is here: on a busy machine long before.
        self._surely_waiting = timeout / 3
        self.likelihood = 0.0
        self.counts = collections.Counter()
        # Lines stored without the agent's knowledge.
        self.repeatable = 0
        # When the agent was found dead; whether it is being killed.
        self._death = None
        self._is_killed = False
        self._lock = threading.Lock()
        self._open, self._cut = set(), set()
        self._server = None
        self._rise = None
        self._up(0)
        self.url = f"http://127.0.0.1:{self._port}"

    # Up and down

    def _up(self, port):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                self.behind = http.client.HTTPConnection(owner._behind, timeout=30)

            def do_POST(self):
                owner._handle(self)

            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def finish(self):
                with contextlib.suppress(OSError, ValueError):
                    super().finish()
                self.behind.close()
                with owner._lock:
                    owner._open.discard(self.connection)
                    owner._cut.discard(self.connection)

            def log_message(self, *_):
                pass

        class Server(loopback.Listener):
            def process_request(self, request, address):
                # In the order in which they were let in, before a thread has them.
                with owner._lock:
                    owner._open.add(request)
                super().process_request(request, address)

        self._server = Server(Handler, port)
        self._port = self._server.port

    def _down(self):
        self._server.stop()
        with self._lock:
            connections = list(self._open)
            self._cut.update(connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fall(self, seconds):
        """Breaks every connection and refuses new ones for so long; does nothing if it is down."""
        if self.is_up:
            self.counts["down"] += 1
            self._down()
            self._rise = threading.Timer(seconds, self._up, [self._port])
            self._rise.start()

    @property
    def is_up(self):
        return self._rise is None or not self._rise.is_alive()

    def rise(self):
        """Is up, if need be after waiting for it."""
        if self._rise is not None:
            self._rise.join()

    def stop(self):
        self.rise()
        self._down()

    @property
    def is_idle(self):
        """Nobody is connected."""
        return not self._open

    # The agent's death

    def agent_is_killed(self):
        """Connections that end from now on do not end because the agent has given up waiting."""
        self._is_killed = True

    def settle(self, timeout=15):
        """The agent is dead: waits until nothing of it is on its way to Kinesis."""
        with self._lock:
            self._death = time.monotonic()
        # Who gets an answer knows that everybody who came before was let in.
        with contextlib.suppress(OSError, http.client.HTTPException):
            last = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
            last.request("GET", "/")
            last.getresponse().read()
            last.close()
        deadline = time.monotonic() + timeout
        while not self.is_idle:
            assert time.monotonic() < deadline, "a dead agent's call does not end"
            time.sleep(0.005)

    def agent_starts(self):
        with self._lock:
            self._death = None
            self._is_killed = False

    # A call

    def _handle(self, handler):
        length = int(handler.headers["Content-Length"] or 0)
        body = handler.rfile.read(length)
        if len(body) < length:
            handler.close_connection = True
            return
        request = wire.Request(0, 0, handler.command, handler.path, list(handler.headers.items()), body, time.monotonic())

        def forward(request, body):
            headers = {name: value for name, value in request.headers if name.lower() not in ("host", "content-length")}
            handler.behind.request("POST", request.path, body, headers)
            response = handler.behind.getresponse()
            return response.status, response.headers["Content-Type"], response.read()

        with self._lock:
            fault = none
            if self._chance.random() < self.likelihood:
                fault = self._chance.choice(FAULTS if request.operation == "PutRecords" else _ON_LISTS)
                self.counts[fault.__name__] += 1
            chance = type(self._chance)(self._chance.random())
        exchange = Exchange(handler, request, forward, chance)
        try:
            fault(exchange)
        except (Gone, OSError):
            exchange.is_told = False
            handler.close_connection = True
        finally:
            is_told = exchange.is_told and time.monotonic() - exchange.began < self._surely_waiting
            # A call may have waited for us longer than the agent waits: then the answer went nowhere.
            is_told = is_told and (self._is_killed or not _has_hung_up(handler.connection))
            if exchange.stored and not is_told and self._may_come_again(exchange, handler.connection):
                lines = [oracle.parse(data) for data in wire.user_data(exchange.stored)]
                self.repeatable += len(lines)
                self._may_repeat([line for line in lines if line is not None])

    def _may_come_again(self, exchange, connection):
        """Whether the agent, as long as it lived, may have sent this call once more.

        What a dead agent still had in flight is told by what it left, not by us.
        """
        with self._lock:
            death, is_cut = self._death, connection in self._cut
        # What was accepted so late that the agent is dead by now, it may have given up before that and sent anew.
        if death is None or is_cut or exchange.began > death:
            return True
        return (exchange.failed or exchange.began + self._surely_waiting) < death
