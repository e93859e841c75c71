"""`format = "json"`: every message of the table (messages/syslog.json) becomes its object in the stream."""

import datetime
import json
import pathlib
import re
import socket

import oracle
import pytest
from conftest import environment, until

TABLE = json.loads((pathlib.Path(__file__).parent / "messages" / "syslog.json").read_text())


def message(row):
    return row["message"].encode() if "message" in row else row["latin1"].encode("latin-1")


def counted(rows):
    return b"".join(b"%d %s" % (len(message(row)), message(row)) for row in rows)


def comparable(value):
    """An object as text; without the year, which depends on the day on which the test runs, where the message has none."""
    value = dict(value)
    stamp = value.get("timestamp", "")
    if stamp.endswith("+01:00"):
        value["timestamp"] = stamp[4:]
    return json.dumps(value, sort_keys=True)


def send(kind, address, rows):
    """Over a connection with octet counts, or each as a datagram."""
    is_local = isinstance(address, str)
    family = socket.AF_UNIX if is_local else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if kind == "stream" else socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        if kind == "stream":
            return sender.sendall(counted(rows))
        for row in rows:
            sender.send(message(row))


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_every_message_of_the_table_becomes_its_object(make_agent, local_kinesis, stream, tmp_path, figure, kind):
    path = tmp_path / "log.sock"
    agent = make_agent([], local_kinesis.url, stream)
    agent.inputs = {
        "devices": {
            "type": "syslog", "format": "json", "framing": "octet_counting",
            "listen": {
                "stream": ["tcp://127.0.0.1:0", f"unix://{path}"], "datagram": ["udp://127.0.0.1:0", f"unixgram://{path}"],
            }[kind],
        }
    }
    # Where it is always one hour before UTC.
    run = agent.start(env=environment(TZ="CET-1"))
    listens = re.compile(r"(?:tcp|udp)://127\.0\.0\.1:(\d+)")
    until(lambda: listens.search(run.log) and path.exists(), 20, "a listening agent")
    # No octet count is 0; a datagram may be empty.
    rows = [row for row in TABLE if message(row) or kind == "datagram"]
    began = datetime.datetime.now(datetime.timezone.utc)
    send(kind, ("127.0.0.1", int(listens.search(run.log)[1])), [row for row in rows if not row.get("local")])
    send(kind, str(path), [row for row in rows if row.get("local")])
    kinesis = oracle.client(local_kinesis.url)

    def records():
        return [
            record.data
            for shard in oracle.shards_of(kinesis, stream)
            for record in oracle.ShardReader(kinesis, stream, shard).user_records()
        ]

    until(lambda: len(records()) >= len(rows), 20, "every message")
    objects = [json.loads(data) for data in records()]
    for value in objects:
        received = datetime.datetime.fromisoformat(value.pop("received").replace("Z", "+00:00"))
        assert datetime.timedelta(seconds=-2) < received - began < datetime.timedelta(seconds=60)
        peer = value.pop("peer")
        assert re.fullmatch(r"127\.0\.0\.1|uid:\d+ pid:\d+", peer), peer
    assert sorted(map(comparable, objects)) == sorted(comparable(row["object"]) for row in rows)
    run.terminate()
    unparsed = sum("unparsed" in row["object"] for row in rows)
    # The two sockets of datagrams have figures of their own.
    figures = [sum(map(int, re.findall(rf"\b{name}=(\d+)", run.log))) for name in ("parsed", "unparsed")]
    assert figures == [len(rows) - unparsed, unparsed]
    figure(f"{len(rows)} messages, {unparsed} of them no syslog")
