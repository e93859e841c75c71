"""Everything that Kinesis does to a producer at once: every record is counted.

The embedded Kinesis fails on purpose, deterministically from a seed, and keeps the account of what it stored without
telling: nothing else may come twice.
"""

import json
import re
import threading
import time
import urllib.request

import oracle
import pytest
from reshards import Reshards
from conftest import BINARY, environment, until


def admin(server, path="faults", body=None, method=None):
    """A call to the embedded Kinesis' admin side."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}/_penstock/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def totals(run):
    """The counters that the agent tells at its end."""
    line = next(line for line in reversed(run.lines) if "duplicates_possible=" in line)
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)\b", line)}


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
            expired = sum(rule["hits"] > 0 for rule in admin(server)["faults"] if rule["fault"].startswith("expire"))
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
        sizes = {path.stat().st_ino: path.stat().st_size for path in paths}
        until(lambda: agent.checkpoints.items() >= sizes.items(), 60, "everything to be delivered")
    finally:
        stopping.set()
    took = time.monotonic() - began
    reshards.stop()
    assert run.terminate() == 0, run.log
    assert reshards.done == ["split", "merge", "scale", "split", "merge"]
    faults = {rule["fault"]: rule for rule in admin(server, method="DELETE")["faults"]}
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
    (rule,) = admin(server)["faults"]
    verdict = oracle.verify(server.url, "logs", [source])
    again = rule["seen"] - verdict.kinesis_records
    figure(f"{verdict}; {rule['hits']} records failed, {again} of {rule['seen']} were sent again")
    verdict.require_exact()
    assert rule["hits"] > 10 and again == rule["hits"]
    assert again <= 0.001 * verdict.kinesis_records


def in_order(verdict):
    """Of each source, what came first came in order, and what came again came behind no later line than its own call's."""
    # Children have higher numbers than their parents, and are read behind them.
    latest, faults = {}, []
    for tally in sorted(verdict.shards, key=lambda tally: tally.shard):
        for code in tally.lines:
            source, number = oracle.line_of(code)
            known = latest.get(source, -1)
            if number > known + 1:
                faults.append((source, known, number))
            latest[source] = max(known, number)
    return faults


ORDER_FAULTS = [
    "record:code=ProvisionedThroughputExceededException,rate=10%", "record:code=InternalFailure,rate=2%",
    "reset:op=PutRecords,when=after,rate=2%", "hang:op=PutRecords,when=after,rate=0.2%,for=30s",
    "html:op=PutRecords,status=500,rate=1%", "count:rate=0.5%", "truncate:op=PutRecords,rate=0.5%",
]


def test_with_ordered_each_key_keeps_its_order_through_faults_reshards_and_an_outage_that_spools(
    start_local, make_agent, logs, chance, figure
):
    server = start_local("logs:4", "--memory=1GiB", f"--seed={chance.getrandbits(31)}", *(f"--fault={f}" for f in ORDER_FAULTS))
    sources = [oracle.Source(number) for number in range(12)]
    paths = [logs / f"{source.number}.log" for source in sources]
    agent = make_agent(
        logs / "*.log", server.url, "logs", partition_key="source", ordered=True, timeout="1s", linger="20ms",
        aggregate_max_records=40,
    )
    stopping = threading.Event()

    def write():
        for _ in range(75):
            for source, path in zip(sources, paths):
                source.write(path, 120)
            stopping.wait(0.2)

    run = agent.start()
    writer = threading.Thread(target=write, daemon=True)
    reshards = Reshards(server.url, "logs", chance, 3, [("split",), ("merge",), ("scale", 6), ("merge",)])
    writer.start()
    reshards.start()
    try:
        time.sleep(5)
        # An outage: what is read meanwhile goes to the spool.
        down = admin(server, body={"fault": "error", "op": "PutRecords", "code": "InternalFailure", "status": 500})
        run.wait_for("what cannot be delivered goes to the spool", 10)
        time.sleep(3)
        for rule in down["faults"] if "faults" in down else [down]:
            if rule["fault"].startswith("error:"):
                admin(server, f"faults/{rule['id']}", method="DELETE")
        writer.join(60)
        sizes = {path.stat().st_ino: path.stat().st_size for path in paths}
        until(lambda: agent.checkpoints.items() >= sizes.items(), 60, "everything to settle")
    finally:
        stopping.set()
    reshards.stop()
    run.wait_for("everything that was spooled is delivered", 30)
    assert run.terminate() == 0, run.log
    assert reshards.done == ["split", "merge", "scale", "merge"]
    verdict = oracle.verify(server.url, "logs", sources, drops=True)
    figure(f"{verdict}, dropped aggregates {verdict.dropped}; agent: {totals(run)}")
    verdict.require_nothing_lost()
    assert in_order(verdict) == []
    # The test can fail: there were repetitions, and lines came through the spool.
    assert verdict.duplicated > 0


def arrivals(server, stream):
    """When each Kinesis record of each shard arrived, and its bytes."""
    kinesis = oracle.client(server.url)
    return {
        shard: [
            (record["ApproximateArrivalTimestamp"].timestamp(), len(record["Data"]))
            for record in oracle.ShardReader(kinesis, stream, shard).kinesis_records()
        ]
        for shard in oracle.shards_of(kinesis, stream)
    }


@pytest.mark.parametrize("key", ["spread", "source"])
def test_a_shard_throttled_to_nothing_holds_back_only_itself(start_local, make_agent, logs, figure, key):
    """Eight shards, more to send than they take; then one of them takes nothing."""
    # Writing is limited as the service limits it, reading is not.
    server = start_local("logs:8", "--memory=1GiB", *(f"--shard-limit=logs:{shard}=100" for shard in range(8)))
    lines = b"".join(oracle.Source(1).lines(50_000))
    for number in range(64):
        # Files that begin alike would be taken for copies of each other.
        (logs / f"{number}.log").write_bytes(b"".join(oracle.Source(number).lines(10)) + lines)
    agent = make_agent(
        logs / "*.log", server.url, "logs", partition_key=key, rate_limit=100,
        agent={"memory_limit": "128MiB"}, spool={"max_size": "1GiB", "keep_free": "0B"},
    )
    run = agent.start()
    time.sleep(4)
    healthy = time.time(), time.time() + 6
    time.sleep(6)
    admin(server, "limits", {"stream": "logs", "shard": 3, "percent": 0})
    time.sleep(2)
    sick = time.time(), time.time() + 8
    time.sleep(8)
    run.kill()
    came = arrivals(server, "logs")

    def rates(window):
        return {
            shard: sum(size for at, size in records if window[0] <= at < window[1]) / (window[1] - window[0])
            for shard, records in came.items()
        }

    before, after = rates(healthy), rates(sick)
    dead = "shardId-000000000003"
    others = [shard for shard in before if shard != dead]
    shares = [after[shard] / before[shard] for shard in others]
    others_share = sum(after[shard] for shard in others) / sum(before[shard] for shard in others)
    figure(
        f"{key}: {sum(before.values()) / (8 << 20):.3f} of the limits before; then the others together {others_share:.3f} of "
        f"before, each {min(shares):.3f} to {max(shares):.3f}; in all {sum(after.values()) / sum(before.values()):.3f}; "
        f"peak {run.peak >> 20} MiB"
    )
    assert after[dead] == 0
    assert others_share >= 0.95
    assert run.peak <= (128 + 32) << 20
    if key == "spread":
        assert sum(before.values()) >= 0.95 * (8 << 20)
        assert sum(after.values()) >= 7 / 8 * 0.95 * sum(before.values())
