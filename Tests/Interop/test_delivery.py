"""Everything that Kinesis does to a producer at once: every record is counted.

The embedded Kinesis fails on purpose, deterministically from a seed, and keeps the account of what it stored without
telling: nothing else may come twice.
"""

import hashlib
import json
import random
import re
import socket
import statistics
import threading
import time

import faults
import oracle
import pytest
from reshards import Reshards
from conftest import environment, until
from test_spool import ledger


def totals(run):
    """The counters that the agent tells at its end."""
    line = next(line for line in reversed(run.lines) if "duplicates_possible=" in line)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)\b", line)}


def wait_for_delivery(agent, logs):
    """Waits until Kinesis has all of it: a checkpoint moves on as well when a record goes to the spool."""
    written = sum(path.stat().st_size for path in logs.iterdir())

    def is_delivered():
        # The ledger is written first: read behind the checkpoints, it is never older than they are.
        position, account = sum(agent.checkpoints.values()), ledger(agent)
        return position == written and account["in_flight"]["records"] == account["spooled"]["records"] == 0

    until(
        is_delivered, 60, lambda: f"everything to be delivered: {ledger(agent)}\n{agent.runs[-1].log[-2000:]}", every=0.2
    )


# Per cent of records, or of PutRecords calls, as issue and facts name them.
EVERYTHING = [
    "record:code=ProvisionedThroughputExceededException,rate=10%", "record:code=InternalFailure,rate=2%",
    "reset:op=PutRecords,when=after,rate=2%", "hang:op=PutRecords,when=after,rate=0.5%,for=30s",
    "hang:op=PutRecords,rate=0.5%,for=30s", "error:op=PutRecords,code=InternalFailure,status=500,rate=0.5%",
    "html:op=PutRecords,status=500,rate=0.5%", "count:rate=0.5%", "expire:op=PutRecords,skip=100,times=1",
    "expire:op=PutRecords,skip=500,times=1",
]


def test_two_million_records_through_every_fault_and_five_reshards_arrive(
    start_local, make_agent, logs, tmp_path, chance, figure, penstock
):
    server = start_local("logs:8", "--memory=2GiB", f"--seed={chance.getrandbits(31)}", *(f"--fault={f}" for f in EVERYTHING))
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = key0\naws_secret_access_key = secret\n")
    env = environment() | {"AWS_SHARED_CREDENTIALS_FILE": str(keys)}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        env.pop(name, None)
    sources = [oracle.Source(number) for number in range(4)]
    paths = [logs / f"{source.number}.log" for source in sources]
    agent = make_agent(logs / "*.log", server.url, "logs", timeout="2s", call_max_size="256KiB", linger="50ms")
    stopping = threading.Event()

    def write():
        for _ in range(100):
            for source, path in zip(sources, paths):
                source.write(path, 5000)
            stopping.wait(0.2)

    def renew():
        """A new key as soon as one has expired, as a role's session does."""
        renewed = 0
        while not stopping.wait(0.1):
            expired = sum(rule["hits"] > 0 for rule in server.admin()["faults"] if rule["fault"].startswith("expire"))
            if expired > renewed:
                renewed = expired
                keys.write_text(f"[default]\naws_access_key_id = key{renewed}\naws_secret_access_key = secret\n")

    run = agent.start(env=env)
    began = time.monotonic()
    writer, renewer = (threading.Thread(target=each, daemon=True) for each in (write, renew))
    reshards = Reshards(
        server.url, "logs", chance, 4, [("split",), ("merge",), ("scale", 12), ("split",), ("merge",)]
    )
    for thread in (writer, renewer, reshards):
        thread.start()
    try:
        writer.join(120)
        assert not writer.is_alive()
        wait_for_delivery(agent, logs)
    finally:
        stopping.set()
    took = time.monotonic() - began
    reshards.stop()
    assert run.terminate() == 0, run.log
    assert "everything that was read is delivered" in run.log, run.log[-2000:]
    assert reshards.done == ["split", "merge", "scale", "split", "merge"]
    faults = {rule["fault"]: rule for rule in server.admin(method="DELETE")["faults"]}
    missed = [text for text, rule in faults.items() if rule["hits"] == 0]
    assert not missed, missed
    verdict = oracle.verify(server.url, "logs", sources, drops=True)
    told = totals(run)
    untold = sum(rule["untold_records"] for rule in faults.values())
    figure(f"{verdict}, dropped aggregates {verdict.dropped}; {took:.0f} s; untold Kinesis records {untold}; agent: {told}")
    figure("; ".join(f"{text}: {rule['hits']}" for text, rule in faults.items()))
    verdict.require_nothing_lost()
    # What came twice is what was stored and not told, record by record, and what was placed again.
    assert verdict.duplicated <= told["duplicates_possible"]
    if verdict.dropped == 0:
        assert verdict.kinesis_records <= told["aggregates"] + untold
    read = penstock("read", "logs", "--endpoint", server.url, timeout=120, env=environment())
    assert read.returncode == 0, read.stderr
    assert read.stdout.count(b"\n") == verdict.arrived


def test_records_that_fail_one_by_one_are_sent_again_one_by_one(start_local, make_agent, logs, chance, figure):
    """Others send a whole call again for one record in it: 261 % of what there was."""
    server = start_local(
        "logs:8", "--memory=1GiB", f"--seed={chance.getrandbits(31)}", "--fault=record:code=InternalFailure,rate=0.05%"
    )
    source, path = oracle.Source(1), logs / "app.log"
    for _ in range(100):
        source.write(path, 10_000)
    # Small aggregates: there shall be many records to fail.
    agent = make_agent(path, server.url, "logs", aggregate_max_records=20)
    last = agent.once(timeout=120)
    assert last.process.returncode == 0, last.log
    (rule,) = server.admin()["faults"]
    verdict = oracle.verify(server.url, "logs", [source])
    again = rule["seen"] - verdict.kinesis_records
    figure(f"{verdict}; {rule['hits']} records failed, {again} of {rule['seen']} were sent again")
    verdict.require_exact()
    assert rule["hits"] > 10 and again == rule["hits"]
    assert again <= 0.001 * verdict.kinesis_records


def out_of_order(verdict, sources):
    """Where a reader sees a source's line before an earlier one, reading a shard behind those it was made of.

    What comes twice may go back, but leaves nothing out. A source's key lies in one shard at a time.
    """
    # Children have higher numbers than their parents.
    latest, faults = {}, []
    for tally in sorted(verdict.shards, key=lambda tally: tally.shard):
        for code in tally.lines:
            source, number = oracle.line_of(code)
            known = latest.get(source, -1)
            if number > known + 1:
                faults.append((source, known, number))
            latest[source] = max(known, number)
    assert all(latest[source.number] == source.written - 1 for source in sources)
    return faults


ORDER_FAULTS = [
    "record:code=ProvisionedThroughputExceededException,rate=10%", "record:code=InternalFailure,rate=2%",
    "reset:op=PutRecords,when=after,rate=2%", "hang:op=PutRecords,when=after,rate=0.2%,for=30s",
    "hang:op=PutRecords,rate=0.5%,for=30s", "error:op=PutRecords,code=InternalFailure,status=500,rate=0.5%",
    "html:op=PutRecords,status=500,rate=1%", "count:rate=0.5%", "truncate:op=PutRecords,rate=0.5%",
]
JSON_KEYS = {"partition_key": "json:/id"}
ORDERED = {
    "plain": ({}, oracle.plain),
    "spool_always": ({"spool": {"when": "always"}}, oracle.plain),
    "gzip_record": ({"compression": "gzip_record"}, oracle.inflated),
    "json": (JSON_KEYS, oracle.in_json),
    "json_gzip_record_spool_always": (
        JSON_KEYS | {"compression": "gzip_record", "spool": {"when": "always"}}, oracle.inflated_json
    ),
}


@pytest.mark.parametrize("form", ORDERED)
def test_with_ordered_each_key_keeps_its_order_through_faults_reshards_a_spooled_outage_and_a_kill(
    start_local, make_agent, logs, chance, figure, form
):
    """Under every fault that may hit a call or a record; the credentials' are another test's."""
    output, decoder = ORDERED[form]
    server = start_local("logs:4", "--memory=1GiB", f"--seed={chance.getrandbits(31)}", *(f"--fault={f}" for f in ORDER_FAULTS))
    sources = [oracle.Source(number) for number in range(12)]
    agent = make_agent(
        logs / "*.log", server.url, "logs", **({"partition_key": "source"} | output), ordered=True, timeout="1s", linger="20ms",
        aggregate_max_records=40,
    )

    def lines(source):
        for line in source.lines(10):
            if "json" not in form:
                yield line
            else:
                yield json.dumps({"line": line[:-1].decode(), "id": f"device-{source.number}"}).encode() + b"\n"

    def write():
        for _ in range(50):
            for _ in range(12):
                for source in sources:
                    # Keys out of JSON share a file.
                    with open(logs / ("all.log" if "json" in form else f"{source.number}.log"), "ab") as file:
                        file.writelines(lines(source))
            time.sleep(0.2)

    run = agent.start()
    writer = threading.Thread(target=write, daemon=True)
    reshards = Reshards(server.url, "logs", chance, 2.5, [("split",), ("merge",), ("scale", 6), ("merge",)])
    writer.start()
    reshards.start()
    time.sleep(3)
    # An outage: what is read meanwhile goes to the spool, and the agent dies in it.
    down = server.admin(body={"fault": "error", "op": "PutRecords", "code": "InternalFailure", "status": 500})
    run.wait_for("what cannot be delivered goes to the spool", 15)
    time.sleep(2)
    run.kill()
    time.sleep(0.5)
    run = agent.start()
    run.wait_for("records of an earlier run wait in the spool", 10)
    time.sleep(1)
    for rule in down["faults"]:
        server.admin(f"faults/{rule['id']}", method="DELETE")
    writer.join(60)
    reshards.stop()
    # What is left goes through unhindered: nothing may stay in the spool.
    server.admin(method="DELETE")
    wait_for_delivery(agent, logs)
    assert run.terminate() == 0, run.log
    assert "everything that was read is delivered" in run.log, run.log[-2000:]
    assert reshards.done == ["split", "merge", "scale", "merge"]
    verdict = oracle.verify(server.url, "logs", sources, drops=True, decoder=decoder)
    figure(f"{verdict}, dropped aggregates {verdict.dropped}; agent, second life: {totals(run)}")
    verdict.require_nothing_lost()
    assert out_of_order(verdict, sources) == []
    # The test can fail: there were repetitions.
    assert verdict.duplicated > 0


def test_with_ordered_what_a_reshard_takes_apart_stays_before_what_comes_later_through_a_kill(
    start_local, make_agent, logs, figure
):
    """What was open when the map changed has no copy yet; without one, a file is read again behind what was copied later."""
    server = start_local("logs:1")
    sources = [oracle.Source(number) for number in range(16)]
    agent = make_agent(
        logs / "*.log", server.url, "logs", partition_key="source", ordered=True, linger="500ms", spool={"when": "always"}
    )

    def write(count):
        for source in sources:
            source.write(logs / f"{source.number}.log", count)

    def is_settled():
        return sum(agent.checkpoints.values()) == sum(path.stat().st_size for path in logs.iterdir())

    write(10)
    run = agent.start()
    until(is_settled, 20, "the first lines to be delivered")
    # One more call comes through: its answer names shards that the agent does not know.
    server.admin(body={"fault": "error", "op": "PutRecords", "code": "InternalFailure", "status": 500, "skip": 1})
    oracle.client(server.url).split_shard(
        StreamName="logs", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(1 << 127)
    )

    def is_told():
        # Some of it is open whenever the answer comes.
        write(1)
        return "the stream has other shards now" in run.log

    until(is_told, 20, "other shards", every=0.02)
    write(10)
    # By a copy a checkpoint moves on as by a delivery.
    until(is_settled, 20, "copies of all that is read")
    run.kill()
    server.admin(method="DELETE")
    last = agent.once()
    assert last.process.returncode == 0, last.log
    verdict = oracle.verify(server.url, "logs", sources, drops=True)
    figure(f"{verdict}")
    verdict.require_nothing_lost()
    assert out_of_order(verdict, sources) == []


def write_much(logs):
    """More than eight shards take in any test, in 200 files: by their names as keys, as many in each shard.

    Files are read in turn, so that of two shards the one with more files gets more to take.
    """
    lines = b"".join(oracle.Source(1).lines(12_000))
    room, number = [25] * 8, 0
    while any(room):
        path = logs / f"{number}.log"
        shard = hashlib.md5(str(path).encode()).digest()[0] >> 5
        if room[shard]:
            room[shard] -= 1
            # Files that begin alike would be taken for copies of each other.
            path.write_bytes(b"".join(oracle.Source(number).lines(10)) + lines)
        number += 1


def arrivals(server, stream):
    """When each Kinesis record of each shard arrived, and its bytes with the key."""
    kinesis = oracle.client(server.url)
    return {
        shard: [
            (record["ApproximateArrivalTimestamp"].timestamp(), len(record["Data"]) + len(record["PartitionKey"]))
            for record in oracle.ShardReader(kinesis, stream, shard).kinesis_records()
        ]
        for shard in oracle.shards_of(kinesis, stream)
    }


@pytest.mark.alone
@pytest.mark.parametrize("key", ["spread", "source"])
def test_a_shard_throttled_to_nothing_holds_back_only_itself(start_local, make_agent, logs, figure, key):
    """Eight shards, more to send than they take; then one of them takes nothing."""
    write_much(logs)
    dead = "shardId-000000000003"

    def attempt():
        # Writing is limited as the service limits it, reading is not.
        server = start_local("logs:8", "--memory=1GiB", *(f"--shard-limit=logs:{shard}=100" for shard in range(8)))
        agent = make_agent(
            logs / "*.log", server.url, "logs", partition_key=key, rate_limit=100,
            agent={"memory_limit": "128MiB"}, spool={"max_size": "1GiB", "keep_free": "0B"},
        )
        run = agent.start()
        time.sleep(4)
        healthy = time.time(), time.time() + 6
        time.sleep(6)
        server.admin("limits", {"stream": "logs", "shard": 3, "percent": 0})
        time.sleep(2)
        sick = time.time(), time.time() + 8
        time.sleep(8)
        run.kill()
        came = arrivals(server, "logs")
        server.stop()

        def rates(window):
            """Bytes a second of each shard: the middle one of the window's seconds, as the machine may stand still for one."""
            return {
                shard: statistics.median(
                    sum(size for at, size in records if second <= at - window[0] < second + 1)
                    for second in range(round(window[1] - window[0]))
                )
                for shard, records in came.items()
            }

        before, after = rates(healthy), rates(sick)
        others = [shard for shard in before if shard != dead]
        shares = [after[shard] / before[shard] for shard in others]
        others_share = sum(after[shard] for shard in others) / sum(before[shard] for shard in others)
        used, left = sum(before.values()) / (8 << 20), sum(after.values()) / sum(before.values())
        figure(
            f"{key}: {used:.3f} of the limits before; then the others together {others_share:.3f} of before, each "
            f"{min(shares):.3f} to {max(shares):.3f}; in all {left:.3f}; peak {run.peak >> 20} MiB"
        )
        assert after[dead] == 0
        assert run.peak <= (128 + 32) << 20
        return others_share >= 0.95 and (key != "spread" or used >= 0.95 and left >= 7 / 8 * 0.95)

    # Others use this machine, too: what the agent itself held back would be held back each time.
    assert any(attempt() for _ in range(3))


@pytest.mark.alone
@pytest.mark.parametrize("key", ["spread", "json:/key"])
def test_a_stream_s_limits_are_used_and_hardly_ever_passed(start_local, make_agent, logs, figure, key):
    """Eight shards with their limits enforced, and more to send than they take: 20 s of it."""
    # A fault that never comes counts the records that were tried.
    server = start_local(
        "logs:8", "--memory=1GiB", *(f"--shard-limit=logs:{shard}=100" for shard in range(8)), f"--fault=record:skip={2**40}"
    )
    if key == "spread":
        write_much(logs)
    else:
        with open(logs / "app.log", "wb", buffering=1 << 20) as file:
            for number, line in enumerate(oracle.Source(1).lines(1_200_000)):
                file.write(b'{"key": "device-%d", "text": "%s"}\n' % (number * 7919 % 5000, line[:-1].replace(b'"', b"'")))
    agent = make_agent(logs / "*.log", server.url, "logs", partition_key=key, rate_limit=100)
    run = agent.start()
    # Two seconds' worth may come in the first.
    time.sleep(5)

    def tried():
        return time.time(), server.admin()["faults"][0]["seen"]

    first, seen = tried()
    time.sleep(20)
    last, seen_then = tried()
    run.kill()
    attempts = seen_then - seen
    came = arrivals(server, "logs")
    sizes = {shard: [size for at, size in records if first <= at < last] for shard, records in came.items()}
    used = {shard: sum(each) / (last - first) / (1 << 20) for shard, each in sizes.items()}
    stored = sum(len(each) for each in sizes.values())
    throttled = 1 - stored / attempts
    figure(
        f"{key}: {sum(used.values()) / 8:.4f} of the limits used, each shard {min(used.values()):.3f} to "
        f"{max(used.values()):.3f}; {attempts} records tried, {throttled:.4f} of them throttled; {run.cpu:.1f} s of CPU"
    )
    assert sum(used.values()) >= 0.97 * 8
    # Records on their way when the counting began or ended are on one side only.
    assert throttled <= 0.01 + 100 / attempts


@pytest.mark.parametrize("code", ["AccessDeniedException", "InternalFailure"])
def test_records_go_on_while_only_the_list_of_shards_is_refused(
    local_kinesis, stream, make_agent, logs, chance, monkeypatch, figure, code
):
    """An agent that knows the shards of an earlier run needs no list to send: refused ones must not hold up its records."""
    lists = []

    def refuse(exchange):
        lists.append(time.monotonic())
        exchange.refuse(500 if code == "InternalFailure" else 400, code)

    source, path = oracle.Source(1), logs / "app.log"
    first = make_agent(path, local_kinesis.url, stream)
    kinesis = faults.FaultyKinesis(local_kinesis.url, random.Random(chance.random()), lambda _: None, timeout=10)
    try:
        monkeypatch.setattr(faults, "FAULTS", [faults.none])
        monkeypatch.setattr(faults, "_ON_LISTS", [refuse])
        first.output["endpoint"] = kinesis.url
        source.write(path, 1000)
        run = first.start()
        until(lambda: path.stat().st_size in first.checkpoints.values(), 10, "the first lines to settle")
        assert run.terminate() == 0, run.log
        kinesis.likelihood = 1
        run = first.start()
        began, slowest = time.monotonic(), 0
        while time.monotonic() - began < 6:
            source.write(path, 100)
            written = time.monotonic()
            until(lambda: path.stat().st_size in first.checkpoints.values(), 5, lambda: f"the lines to settle:\n{run.log}")
            slowest = max(slowest, time.monotonic() - written)
        assert run.terminate() == 0, run.log
    finally:
        kinesis.stop()
    figure(f"{len(lists)} refused lists in 6 s, {source.written} lines, the slowest settled after {slowest:.1f} s")
    assert 2 <= len(lists) <= 30
    oracle.verify(local_kinesis.url, stream, [source]).require_exact()


def test_a_stream_that_is_made_anew_is_sent_to_by_its_own_shards(start_local, make_agent, logs, figure):
    """Its shards have the names of those before it, and other ranges."""
    server = start_local("logs:2")
    client = oracle.client(server.url)
    sources = [oracle.Source(number) for number in range(40)]

    def write(count):
        for _ in range(count):
            for number, source in enumerate(sources):
                source.write(logs / f"{number}.log", 5)
            time.sleep(0.005)

    agent = make_agent(logs / "*.log", server.url, "logs", partition_key="source")
    run = agent.start()
    write(60)
    client.delete_stream(StreamName="logs")
    write(60)
    until(lambda: "the stream does not exist" in run.log, 10, lambda: run.log)
    client.create_stream(StreamName="logs", ShardCount=5)
    write(60)
    until(
        lambda: sum(agent.checkpoints.values()) == sum(path.stat().st_size for path in logs.iterdir())
        and ledger(agent)["spooled"]["records"] == 0, 30, lambda: run.log, every=0.2,
    )
    assert run.terminate() == 0, run.log
    tallies = [
        oracle._tally(server.url, "logs", shard, bounds, drops=True, decoder=oracle.plain)
        for shard, bounds in oracle.shards_of(client, "logs").items()
    ]
    figure(f"{sum(len(tally.lines) for tally in tallies)} lines in {len(tallies)} new shards, dropped {[tally.dropped for tally in tallies]}")
    assert len(tallies) == 5 and all(tally.dropped == tally.misrouted == 0 for tally in tallies)
    # What was written after the last that the old one took is all there.
    lines = {line for tally in tallies for line in tally.lines}
    for source in sources:
        assert lines >= {source.number << oracle._NUMBER_BITS | at for at in range(source.written - 300, source.written)}


def test_an_input_that_has_more_than_the_stream_takes_leaves_room_for_the_others(start_local, make_agent, logs, figure):
    server = start_local("logs:1")
    behind, live = oracle.Source(1), oracle.Source(2)
    behind.write(logs / "behind.log", 200_000)
    agent = make_agent(logs / "behind.log", server.url, "logs", rate_limit=100)
    agent.inputs["zlive"] = {"type": "file", "paths": [str(logs / "live.log")], "start_at": "beginning"}
    # Datagrams that come all the time, which nearly always find room, must not take the others' turns.
    agent.inputs["zz"] = {"type": "socket", "listen": ["udp://127.0.0.1:0"]}
    run = agent.start()
    port = int(re.search(r"address=udp://127\.0\.0\.1:(\d+)", run.wait_for("address=udp://")).group(1))
    sending = threading.Event()

    def send():
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            while not sending.wait(0.002):
                sender.sendto(b"a datagram", ("127.0.0.1", port))

    threading.Thread(target=send, daemon=True).start()
    slowest = 0
    for _ in range(4):
        live.write(logs / "live.log", 1000)
        written = time.monotonic()
        size = (logs / "live.log").stat().st_size
        until(lambda: size in agent.checkpoints.values(), 10, lambda: f"the live lines:\n{run.log}")
        slowest = max(slowest, time.monotonic() - written)
    assert (logs / "behind.log").stat().st_size not in agent.checkpoints.values(), "nothing was behind"
    sending.set()
    figure(f"the slowest of 4 times 1,000 lines settled after {slowest:.1f} s")
    run.kill()
