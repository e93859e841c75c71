"""A line that is longer than a record may be goes to the dead letters, whole and recoverable; the others are delivered."""

import base64
import contextlib
import gzip
import json
import random
import time

import faults
import oracle
import pytest
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from conftest import until
from test_spool import ledger


@pytest.mark.parametrize("restarts", [False, True])
def test_a_long_line_goes_to_the_dead_letters_whole_and_the_others_are_delivered(
    start_local, make_agent, penstock, logs, figure, restarts
):
    server = start_local("logs:4")
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(path, server.url, "logs", inputs={"on_oversize": "dead_letter", "max_record": "1KiB"})
    # Longer than a record, than a block that is read at once, and than the longest record that any stream takes.
    long_lines = [b"%d:" % size + bytes(97 + at % 26 for at in range(size)) for size in (2000, 200_000, 3_000_000)]
    long_lines.append(b"\xff\xfe" + b"x" * 5000)
    for line in long_lines:
        source.write(path, 100)
        with open(path, "ab") as file:
            file.write(line + b"\n")
    source.write(path, 100)
    if restarts:
        run = agent.start()
        until(lambda: path.stat().st_size in agent.checkpoints.values(), 10, "the end of the file")
        run.kill()
        source.write(path, 100)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    oracle.verify(server.url, "logs", [source]).require_nothing_lost()

    letters = [
        json.loads(line)
        for line in penstock("read", "--dead-letters", "--format", "json", "-c", agent.config).stdout.splitlines()
    ]
    assert {letter["reason"] for letter in letters} == {"longer than max_record"}
    assert {(letter["input"], letter["source"]) for letter in letters} == {("app", str(path))}
    content = path.read_bytes()
    # Pieces of a line follow each other: together they are the line.
    for letter in letters:
        assert letter["end"] > letter["first"]
        data = letter["text"].encode() if "text" in letter else base64.b64decode(letter["data"])
        assert content[letter["first"] : letter["end"]].rstrip(b"\r\n") == data.rstrip(b"\r\n")
    covered = sorted((letter["first"], letter["end"]) for letter in letters)
    whole = b"".join(content[first:end] for first, end in covered)
    assert whole == b"".join(line + b"\n" for line in long_lines)
    raw = penstock("read", "--dead-letters", "-c", agent.config).stdout
    assert long_lines[0] + b"\n" in raw
    account = ledger(agent)
    if not restarts:
        assert account["dead_lettered"]["bytes"] == len(whole)
        assert account["delivered"]["records"] == source.written
        assert account["read"]["bytes"] == path.stat().st_size
    figure(f"{len(letters)} letters of {len(long_lines)} lines, {len(whole)} bytes")


def test_full_dead_letters_drop_what_comes_and_count_it(start_local, make_agent, logs, penstock):
    server = start_local("logs:4")
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(
        path, server.url, "logs", inputs={"on_oversize": "dead_letter", "max_record": "1KiB"},
        agent={"dead_letters": {"max_size": "20KiB"}},
    )
    with open(path, "wb") as file:
        for number in range(20):
            file.write(b"%02d" % number + b"y" * 2000 + b"\n")
    source.write(path, 100)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    oracle.verify(server.url, "logs", [source]).require_exact()
    account = ledger(agent)
    kept = account["dead_lettered"]["records"]
    assert 5 <= kept < 20 and account["dropped"]["records"] == 20 - kept
    assert "the dead letters are full" in last.log
    size = sum(file.stat().st_size for file in (agent.state / "dead-letters").iterdir())
    assert size <= 20 << 10
    printed = penstock("files", "-c", agent.config).stdout.decode()
    assert "dead lettered" in printed and "all delivered" in printed


@pytest.fixture
def faulty_kinesis(local_kinesis, chance, monkeypatch):
    """Puts a proxy in front of the embedded Kinesis that treats each call but those for lists as one function does."""
    with contextlib.ExitStack() as stack:

        def start(fault):
            monkeypatch.setattr(faults, "FAULTS", [fault])
            monkeypatch.setattr(faults, "_ON_LISTS", [faults.none])
            kinesis = faults.FaultyKinesis(local_kinesis.url, random.Random(chance.random()), lambda _: None, timeout=10)
            stack.callback(kinesis.stop)
            kinesis.likelihood = 1
            return kinesis

        yield start


def wait_until_settled(agent, path, source):
    """Writes on meanwhile, as a program does: a bad record that is alone is known by others that are taken."""
    written = time.monotonic()

    def is_settled():
        nonlocal written
        if path.stat().st_size in agent.checkpoints.values():
            return True
        if time.monotonic() - written > 2:
            source.write(path, 1)
            written = time.monotonic()
        return False

    until(is_settled, 30, "everything to settle")


@pytest.mark.parametrize("spools", [False, True])
def test_a_record_that_kinesis_refuses_goes_to_the_dead_letters_and_every_other_is_delivered(
    local_kinesis, stream, faulty_kinesis, make_agent, penstock, logs, figure, spools
):
    """Kinesis refuses a call as a whole for the sake of one record in it, and does not say which."""

    def refuses_poison(exchange):
        if exchange.is_put and any(b"poison" in record["Data"] for record in exchange.request.records):
            return exchange.refuse(400, "ValidationException")
        faults.none(exchange)

    kinesis = faulty_kinesis(refuses_poison)
    source, path = oracle.Source(1), logs / "app.log"
    poison = [b"poison %d" % number for number in range(3)]
    for line in poison:
        source.write(path, 500)
        with open(path, "ab") as file:
            file.write(line + b"\n")
    source.write(path, 500)
    agent = make_agent(path, kinesis.url, stream, aggregate=False, rate_limit=0)
    if spools:
        agent.output["spool"] = {"when": "always", "sync": "always"}
    run = agent.start()
    try:
        wait_until_settled(agent, path, source)
    finally:
        run.terminate()
    oracle.verify(local_kinesis.url, stream, [source]).require_exact()
    letters = [
        json.loads(line)
        for line in penstock("read", "--dead-letters", "--format", "json", "-c", agent.config).stdout.splitlines()
    ]
    assert [letter["text"].encode() for letter in sorted(letters, key=lambda letter: letter["first"])] == poison
    assert all("ValidationException" in letter["reason"] and letter["source"] == str(path) for letter in letters)
    account = ledger(agent)
    assert account["dead_lettered"]["records"] == 3 and account["delivered"]["records"] == source.written
    figure(f"{kinesis.counts.total()} calls for {source.written + 3} records, 3 of them refused")


@pytest.mark.parametrize("compression", ["none", "gzip", "gzip_record"])
def test_a_refused_aggregate_is_printed_record_by_record(
    local_kinesis, stream, faulty_kinesis, make_agent, penstock, logs, compression
):
    def refuses_poison(exchange):
        if exchange.is_put and any(b"poison" in content(record["Data"]) for record in exchange.request.records):
            return exchange.refuse(400, "ValidationException")
        faults.none(exchange)

    def content(data):
        if compression == "gzip":
            return gzip.decompress(data)
        record = {"Data": data, "PartitionKey": "k", "SequenceNumber": "1", "ApproximateArrivalTimestamp": 0}
        users = [user["kinesis"] for user in iter_deaggregate_records([record], data_format="Boto3")]
        each = [base64.b64decode(user["data"]) if user.get("aggregated") else user["data"] for user in users]
        return b"".join(gzip.decompress(one) if compression == "gzip_record" else one for one in each)

    kinesis = faulty_kinesis(refuses_poison)
    source, path = oracle.Source(1), logs / "app.log"
    source.write(path, 2000)
    with open(path, "ab") as file:
        file.write(b"poison\n")
    source.write(path, 2000)
    lines = path.read_bytes().splitlines()
    agent = make_agent(
        path, kinesis.url, stream, rate_limit=0, compression=compression, aggregate_max_size="10KiB",
        partition_key="source",
    )
    run = agent.start()
    try:
        wait_until_settled(agent, path, source)
    finally:
        run.terminate()
    raw = penstock("read", "--dead-letters", "-c", agent.config).stdout
    refused = raw.splitlines()
    start = lines.index(refused[0])
    assert 1 < len(refused) < 2000 and b"poison" in refused
    assert lines[start : start + len(refused)] == refused

    def as_json(*options):
        printed = penstock("read", "--dead-letters", "--format", "json", "-c", agent.config, *options).stdout
        return [json.loads(line) for line in printed.splitlines()]

    letters = as_json()
    assert [letter["text"].encode() for letter in letters] == refused
    [stretch] = {(letter["first"], letter["end"]) for letter in letters}
    assert path.read_bytes()[slice(*stretch)] == raw
    assert {letter["partitionKey"] for letter in letters} == {str(path)}
    assert all("ValidationException" in letter["reason"] and letter["source"] == str(path) for letter in letters)
    numbers = list(range(len(refused)))
    if compression == "gzip":
        assert [letter["line"] for letter in letters] == numbers and "aggregate" not in letters[0]
        assert len(as_json("--no-gunzip")) == 1
    else:
        assert [letter["subSequenceNumber"] for letter in letters] == numbers
        assert {letter["aggregate"] for letter in letters} == {len(refused)}
    assert as_json("--limit", 3) == letters[:3]
    printed = penstock("read", "--dead-letters", "--format", "hex", "--limit", 1, "-c", agent.config).stdout
    assert bytes.fromhex(printed.decode()) == refused[0]


def test_while_kinesis_refuses_every_call_it_is_asked_ever_more_rarely_and_no_record_is_blamed(
    local_kinesis, stream, faulty_kinesis, make_agent, penstock, logs, figure
):
    def refuses_all(exchange):
        return exchange.refuse(400, "ValidationException") if exchange.is_put else faults.none(exchange)

    kinesis = faulty_kinesis(refuses_all)
    source, path = oracle.Source(1), logs / "app.log"
    source.write(path, 50_000)
    agent = make_agent(path, kinesis.url, stream, rate_limit=0)
    run = agent.start()
    try:
        time.sleep(8)
        refused = kinesis.counts["refuses_all"]
        kinesis.likelihood = 0
        # What was spooled is settled, too.
        until(lambda: ledger(agent)["delivered"]["records"] == 50_000, 30, lambda: f"all of it: {ledger(agent)}")
    finally:
        run.terminate()
    figure(f"{refused} calls in 8 s, all refused")
    oracle.verify(local_kinesis.url, stream, [source]).require_exact()
    assert b"" == penstock("read", "--dead-letters", "-c", agent.config).stdout
    assert refused < 100
