"""Records above 1 MiB: real files, embedded Kineses with MaxRecordSizeInKiB, read back by boto3. Each record arrives byte
for byte, or lies whole among the dead letters.
"""

import base64
import collections
import gzip
import hashlib
import json
import subprocess
import time
import urllib.request

import oracle
import pytest
from conftest import until
from test_memory import MIB, most_memory
from test_spool import ledger, spool

# What a partition key is left of a stream's limit.
KEY = 1024
MOST = 10 * MIB - KEY
SIZES = [int(size * MIB) for size in (0.9, 1, 1.5, 5, 9.9, 11)]
LONG = {"on_oversize": "dead_letter", "max_record": "10MiB"}


def record(chance, size):
    """Bytes of every kind but LF, and no CR at the end."""
    return chance.randbytes(size - 1).replace(b"\n", b"\0") + b"e"


def raise_limit(url, stream, kibibytes):
    kinesis = oracle.client(url)
    arn = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=kibibytes)


def admin(url, method, path, value=None):
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"{url}/_penstock/{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def letters(penstock, agent):
    """The dead letters as they are printed: reason and bytes, pieces of one record joined."""
    printed = penstock("read", "--dead-letters", "--format", "json", "-c", agent.config)
    assert printed.returncode == 0, printed.stderr
    pieces = [json.loads(line) for line in printed.stdout.splitlines()]
    # What a dead agent had not noted is there again.
    pieces = {(letter["source"], letter["first"], letter["end"]): letter for letter in pieces}
    found, end = [], None
    for _, letter in sorted(pieces.items()):
        data = letter["text"].encode() if "text" in letter else base64.b64decode(letter["data"])
        # A letter holds no line end; between two lines there is one.
        if letter["first"] == end:
            found[-1] = (letter["reason"], found[-1][1] + data)
        else:
            found.append((letter["reason"], data))
        end = letter["first"] + len(data)
    return found


def known(data):
    """What a record is compared by: a difference is to be read."""
    return len(data), hashlib.sha256(data).hexdigest()[:16]


def judge(url, records, agent, penstock, longest, alike=collections.Counter):
    """Every record is in the stream, or whole among the dead letters, once."""
    arrived = alike(known(user.data) for user in oracle.user_records(url, "logs"))
    dead = letters(penstock, agent)
    assert arrived == alike(known(data) for data in records if len(data) <= longest)
    lost = alike(known(data) for data in records if len(data) > longest)
    assert alike(known(data.rstrip(b"\r\n")) for _, data in dead) == lost
    for reason, data in dead:
        assert reason == ("longer than the stream takes" if len(data) <= MOST else "longer than max_record")
    return dead


def finish(agent, *paths, timeout=60):
    sizes = {path.stat().st_ino: path.stat().st_size for path in paths}
    until(
        lambda: agent.checkpoints.items() >= sizes.items(), timeout,
        lambda: f"everything to settle:\n{agent.runs[-1].log}",
    )


def wait_for_spool(agent, least):
    """Waits until so much is spooled; the newest call stays in memory, to probe with."""
    until(lambda: spool(agent) > least, 60, lambda: f"the spool to take what was read:\n{agent.runs[-1].log}")


@pytest.mark.parametrize("kibibytes", [10240, 2048, 1024])
@pytest.mark.parametrize("wire", ["cbor", "json"])
def test_each_record_arrives_byte_for_byte_or_lies_whole_in_the_dead_letters(
    start_local, make_agent, penstock, logs, chance, figure, kibibytes, wire
):
    server = start_local("logs:2", "--memory=1GiB")
    raise_limit(server.url, "logs", kibibytes)
    path = logs / "app.log"
    records = [data for size in SIZES for data in (record(chance, size), record(chance, 100))]
    path.write_bytes(b"".join(data + b"\n" for data in records))
    agent = make_agent(path, server.url, "logs", inputs=LONG, wire=wire)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    dead = judge(server.url, records, agent, penstock, min(MOST, kibibytes * 1024 - KEY))
    assert ("takes no records as long as max_record" in last.log) == (kibibytes < 10240)
    account = ledger(agent)
    assert account["read"]["bytes"] == path.stat().st_size
    assert account["delivered"]["records"] == len(records) - len(dead)
    figure(f"{len(records) - len(dead)} arrived, {len(dead)} dead letters, peak {last.peak / MIB:.0f} MiB")


@pytest.mark.parametrize("compression", ["none", "gzip", "gzip_record"])
@pytest.mark.parametrize("kind", ["multiline", "packed"])
def test_records_of_several_lines_and_of_packed_files_may_be_as_long(
    start_local, make_agent, penstock, logs, chance, kind, compression
):
    """What cannot be compressed is no longer for it than the stream takes."""
    server = start_local("logs:2", "--memory=1GiB")
    raise_limit(server.url, "logs", 10240)
    path = logs / "app.log"
    inputs = dict(LONG)
    sizes = [SIZES[0], SIZES[2], SIZES[4]]
    if kind == "multiline":
        inputs |= {"multiline_start": "^begin", "multiline_timeout": "100ms"}
        records = [
            b"begin " + b"\n".join(record(chance, size // 10 - 10).replace(b"begin", b"other") for _ in range(10))
            for size in sizes
        ]
    else:
        records = [record(chance, size) for size in sizes]
    agent = make_agent(path, server.url, "logs", inputs=inputs, compression=compression)
    first = record(chance, 100) if kind == "packed" else b"begin first"
    path.write_bytes(first + b"\n")
    agent.once()
    whole = b"".join(data + b"\n" for data in [first, *records])
    path.write_bytes(whole)
    if kind == "packed":
        # It was rotated and packed while the agent did not run.
        path.rename(logs / "app.log.1")
        subprocess.run(["gzip", "-1", logs / "app.log.1"], check=True, timeout=60)
        path.write_bytes(b"")
    last = agent.once()
    assert last.process.returncode == 0, last.log
    arrived = [user.data for user in oracle.user_records(server.url, "logs")]
    if compression != "none":
        arrived = [gzip.decompress(data) for data in arrived]
    lines = b"".join(data if data.endswith(b"\n") and compression == "gzip" else data + b"\n" for data in arrived)
    assert collections.Counter(lines.split(b"\n")) == collections.Counter(whole.split(b"\n"))
    if compression != "gzip":
        assert collections.Counter(arrived) == collections.Counter([first, *records])
    assert letters(penstock, agent) == []


def test_what_the_stream_does_not_take_is_split_or_cut_off_as_the_input_says(start_local, make_agent, logs, chance):
    server = start_local("logs:1", "split:1", "--memory=1GiB")
    text = bytes(chance.choices(range(97, 123), k=11 * MIB))
    records = [text[:size] for size in (1000, 3 * MIB, 11 * MIB, 500)]
    path = logs / "app.log"
    path.write_bytes(b"".join(data + b"\n" for data in records))
    for stream, policy in (("logs", "truncate"), ("split", "split")):
        raise_limit(server.url, stream, 2048)
        inputs = LONG | {"on_oversize": policy}
        agent = make_agent(path, server.url, stream, inputs=inputs, ordered=True, partition_key="=k")
        last = agent.once()
        assert last.process.returncode == 0, last.log
        arrived = [user.data for user in oracle.user_records(server.url, stream)]
        longest = 2 * MIB - KEY
        if policy == "truncate":
            assert arrived == [data[:longest] for data in records]
        else:
            assert b"".join(arrived) == b"".join(records) and max(map(len, arrived)) == longest
        assert ledger(agent)["delivered"]["bytes"] + ledger(agent)["dropped"]["bytes"] == path.stat().st_size


def test_long_records_outlive_an_outage_in_the_spool_and_the_agents_death(
    start_local, make_agent, penstock, logs, chance, figure
):
    """A new run knows the stream's limit though nobody answers it."""
    server = start_local("logs:2", "--memory=1GiB")
    raise_limit(server.url, "logs", 10240)
    path = logs / "app.log"
    records = [record(chance, 100)]
    path.write_bytes(records[0] + b"\n")
    agent = make_agent(path, server.url, "logs", inputs=LONG, spool={"sync": "50ms", "keep_free": "0B"})
    run = agent.start()
    finish(agent, path)
    run.wait_for("the stream takes long records")
    admin(server.url, "POST", "faults", {"fault": "html", "status": 503})
    for half in range(2):
        more = [record(chance, size) for size in SIZES]
        records += more
        with open(path, "ab") as file:
            file.writelines(data + b"\n" for data in more)
        if half == 0:
            wait_for_spool(agent, 8 * MIB)
            run.kill()
            run = agent.start()

    def are_exported():
        exported = penstock("spool", "export", "-c", agent.config).stdout
        # All but the last that is not too long.
        return all(data + b"\n" in exported for data in records[1:-2] if len(data) <= MOST)

    # The size does not tell: what the dead agent had not noted is spooled again.
    until(are_exported, 20, "all of them to be spooled", every=0.3)
    spooled = spool(agent)
    verified = penstock("spool", "verify", "-c", agent.config)
    assert verified.returncode == 0, verified
    admin(server.url, "DELETE", "faults")
    run.wait_for("everything that was spooled is delivered", 30)
    assert run.terminate() == 0, run.log
    judge(server.url, records, agent, penstock, MOST, alike=set)
    figure(f"{spooled / MIB:.0f} MiB spooled, peak {run.peak / MIB:.0f} MiB")


@pytest.mark.parametrize("first", ["a refusal", "the limit"])
def test_a_lowered_limit_puts_what_was_spooled_among_the_dead_letters(
    start_local, make_agent, penstock, logs, chance, first
):
    """Whichever is heard first; nothing else comes that would be taken."""
    server = start_local("logs:1", "--memory=1GiB")
    raise_limit(server.url, "logs", 10240)
    path = logs / "app.log"
    records = [record(chance, size) for size in (100, 5 * MIB, 2 * MIB)]
    path.write_bytes(records[0] + b"\n")
    agent = make_agent(path, server.url, "logs", inputs=LONG, spool={"sync": "50ms", "keep_free": "0B"})
    run = agent.start()
    finish(agent, path)
    admin(server.url, "POST", "faults", {"fault": "html", "status": 503})
    with open(path, "ab") as file:
        file.writelines(data + b"\n" for data in records[1:])
    wait_for_spool(agent, 5 * MIB)
    run.kill()
    admin(server.url, "DELETE", "faults")
    raise_limit(server.url, "logs", 1024)
    if first == "a refusal":
        admin(server.url, "POST", "faults", {"fault": "delay", "op": "DescribeStreamSummary", "by": "2s", "times": 1})
    run = agent.start()
    run.wait_for("everything that was spooled is delivered", 30)
    finish(agent, path)
    assert run.terminate() == 0, run.log
    # Both calls go out at once: the other order is not forced.
    assert "ValidationException" in run.log or first == "the limit"
    # What a dead agent had not noted is read again.
    judge(server.url, records, agent, penstock, MIB - KEY, alike=set)


def test_who_may_not_ask_for_the_limit_sends_what_every_stream_takes_and_is_told_once(
    start_local, make_agent, penstock, logs, chance
):
    fault = "error:op=DescribeStreamSummary,code=AccessDeniedException,status=400"
    server = start_local("logs:1", f"--fault={fault}")
    path = logs / "app.log"
    records = [record(chance, size) for size in (100, 3 * MIB // 2, MIB - KEY, 100)]
    path.write_bytes(b"".join(data + b"\n" for data in records))
    agent = make_agent(path, server.url, "logs", inputs=LONG)
    run = agent.start()
    finish(agent, path)
    time.sleep(0.5)
    assert run.terminate() == 0, run.log
    judge(server.url, records, agent, penstock, MIB - KEY)
    assert run.log.count("allow kinesis:DescribeStreamSummary") == 1, run.log
    assert admin(server.url, "GET", "faults")["faults"][0]["hits"] == 1

    # Who has no long records does not ask.
    agent = make_agent(path, server.url, "logs", inputs={"max_record": "1MiB"})
    assert agent.once().process.returncode == 0
    assert admin(server.url, "GET", "faults")["faults"][0]["hits"] == 1


def test_records_of_ten_mebibytes_pass_a_shard_that_takes_one_a_second(
    start_local, make_agent, penstock, logs, chance, figure
):
    server = start_local("logs:1", "--shard-limit=logs:0=100", "--memory=1GiB")
    raise_limit(server.url, "logs", 10240)
    path = logs / "app.log"
    records = [record(chance, size) for size in (100, MOST, 100, 9 * MIB, 100)]
    path.write_bytes(b"".join(data + b"\n" for data in records))
    agent = make_agent(path, server.url, "logs", inputs=LONG, rate_limit=100)
    began = time.monotonic()
    last = agent.once()
    seconds = time.monotonic() - began
    assert last.process.returncode == 0, last.log
    judge(server.url, records, agent, penstock, MOST)
    figure(f"20 MiB in {seconds:.1f} s")
    # A second's worth is saved up; what follows a long record waits until the shard has room again.
    assert 17 < seconds < 45


@pytest.mark.parametrize("wire", ["cbor", "json"])
@pytest.mark.parametrize("kind", ["lines", "multiline"])
def test_long_records_take_no_more_memory_than_was_allowed_also_in_an_outage(
    start_local, make_agent, penstock, logs, chance, figure, wire, kind
):
    server = start_local("logs:4", "--memory=2GiB")
    raise_limit(server.url, "logs", 10240)
    path = logs / "app.log"
    path.write_bytes(b"")
    inputs = LONG | ({"multiline_start": "^begin", "multiline_timeout": "100ms"} if kind == "multiline" else {})
    agent = make_agent(
        path, server.url, "logs", inputs=inputs, agent={"memory_limit": "1MiB"}, wire=wire,
        spool={"sync": "50ms", "keep_free": "0B"},
    )
    # The least that is enough, as the command says itself.
    agent.agent["memory_limit"] = "64MiB"
    agent.write_config()
    said = penstock("check", "-c", agent.config)
    assert said.returncode == 78 and b"max_record" in said.stderr + said.stdout
    least = (said.stderr + said.stdout).split(b'set agent.memory_limit to "')[1].split(b"MiB")[0]
    agent.agent["memory_limit"] = f"{int(least)}MiB"
    allowed = (int(least) + 32) * MIB

    start = b"begin " if kind == "multiline" else b""
    records = [start + record(chance, int(size * MIB)) for size in (9.9, 5, 1.5, 9.9, 0.9, 9.9) for _ in range(4)]
    records.append(start + record(chance, 11 * MIB))
    run = agent.start()
    with most_memory(run, allowed) as is_enforced:
        finish(agent, path)
        with open(path, "ab") as file:
            file.writelines(data + b"\n" for data in records)
        until(lambda: len(oracle.user_records(server.url, "logs")) > 3, 30, "some to arrive")
        admin(server.url, "POST", "faults", {"fault": "html", "status": 503})
        records += [start + record(chance, int(9.9 * MIB)) for _ in range(12)]
        with open(path, "ab") as file:
            file.writelines(data + b"\n" for data in records[-12:])
        wait_for_spool(agent, 11 * 9.9 * MIB)
        admin(server.url, "DELETE", "faults")
        run.wait_for("everything that was spooled is delivered", 60)
        assert run.terminate() == 0, run.log
        peak = run.peak
    figure(f"peak {peak / MIB:.0f} MiB of {int(least)} + 32 ({'enforced' if is_enforced else 'measured'})")
    assert peak <= allowed
    judge(server.url, records, agent, penstock, MOST, alike=set)
