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


class Reshards(threading.Thread):
    """Reshards a stream, one change after another."""

    def __init__(self, server, stream, changes, chance, pause):
        super().__init__(daemon=True)
        self.kinesis = oracle.client(server.url)
        self.stream, self.changes, self.chance, self.pause = stream, changes, chance, pause
        self.done, self.fault = [], None
        self.stopping = threading.Event()

    def open_shards(self):
        shards = self.kinesis.list_shards(StreamName=self.stream)["Shards"]
        found = [
            (int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"]), shard["ShardId"])
            for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        ]
        return sorted(found)

    def split(self):
        start, end, shard = self.chance.choice(self.open_shards())
        at = self.chance.randrange(start + (end - start) // 4, end - (end - start) // 4)
        self.kinesis.split_shard(StreamName=self.stream, ShardToSplit=shard, NewStartingHashKey=str(at))

    def merge(self):
        shards = self.open_shards()
        at = self.chance.randrange(len(shards) - 1)
        self.kinesis.merge_shards(
            StreamName=self.stream, ShardToMerge=shards[at][2], AdjacentShardToMerge=shards[at + 1][2]
        )

    def scale(self, count):
        self.kinesis.update_shard_count(StreamName=self.stream, TargetShardCount=count, ScalingType="UNIFORM_SCALING")

    def run(self):
        try:
            for name, *arguments in self.changes:
                if self.stopping.wait(self.pause):
                    return
                getattr(self, name)(*arguments)
                self.done.append(name)
        except BaseException as fault:
            self.fault = fault

    def stop(self):
        self.stopping.set()
        self.join(10)
        if self.fault:
            raise self.fault


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
    reshards = Reshards(server, "logs", [("split",), ("merge",), ("scale", 12), ("split",), ("merge",)], chance, pause=4)
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
    verdict = oracle.verify(server.url, "logs", sources)
    told = totals(run)
    untold = sum(rule["untold_records"] for rule in faults.values())
    figure(f"{verdict}; {took:.0f} s; untold Kinesis records {untold}; agent: {told}")
    figure("; ".join(f"{text}: {rule['hits']}" for text, rule in faults.items()))
    verdict.require_nothing_lost()
    # No aggregate holds more lines than the largest.
    assert verdict.duplicated <= told["duplicates_possible"]
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
