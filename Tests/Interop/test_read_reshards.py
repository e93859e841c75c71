"""`penstock read` over splits and merges: every record once, and each key's in the order they were written in."""

import json
import signal
import subprocess
import time

import oracle
import pytest
from conftest import BINARY, environment, until
from test_local_reshard import id_of, split

KEYS = [f"key-{number}" for number in range(24)]


class Writer:
    """Writes numbered records under every key, in rounds."""

    def __init__(self, url, stream):
        self.kinesis = oracle.client(url)
        self.stream = stream
        self.rounds = 0

    def write(self, rounds=10):
        for _ in range(rounds):
            answer = self.kinesis.put_records(
                StreamName=self.stream,
                Records=[{"PartitionKey": key, "Data": b"%s %d" % (key.encode(), self.rounds)} for key in KEYS],
            )
            assert answer["FailedRecordCount"] == 0
            self.rounds += 1

    def reshard_and_write(self):
        """Splits, merges, splits what was merged, and doubles: six generations of shards with records in each."""
        self.write()
        split(self.kinesis, self.stream, self.open_shards()[0])
        self.write()
        self.merge(*self.open_shards()[:2])
        self.write()
        self.merge(*self.open_shards()[:2])
        self.write()
        split(self.kinesis, self.stream, self.open_shards()[0])
        self.write()
        self.kinesis.update_shard_count(StreamName=self.stream, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        self.write()

    def open_shards(self):
        """Numbers of the open shards in the order of their ranges."""
        shards = self.kinesis.list_shards(StreamName=self.stream)["Shards"]
        shards = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        shards.sort(key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        return [int(shard["ShardId"][-12:]) for shard in shards]

    def merge(self, left, right):
        self.kinesis.merge_shards(
            StreamName=self.stream, ShardToMerge=id_of(left), AdjacentShardToMerge=id_of(right)
        )

    def require(self, text, first=0):
        """Every record from a round on came once, each key's in order."""
        numbers = {key: [] for key in KEYS}
        for line in text.splitlines():
            key, number = line.decode().split()
            numbers[key].append(int(number))
        assert numbers == {key: list(range(first, self.rounds)) for key in KEYS}


@pytest.fixture
def writer(start_local):
    server = start_local("logs:2")
    writer = Writer(server.url, "logs")
    writer.place = ["logs", "--endpoint", server.url]
    return writer


@pytest.fixture
def follow(writer, tmp_path):
    """Follows the writer's stream: `follow("--from", "latest")` gives the process and its output's path."""
    processes = []

    def start(*options):
        out = tmp_path / f"out-{len(processes)}"
        with open(out, "wb") as file:
            processes.append(
                subprocess.Popen(
                    [BINARY, "read", *writer.place, "--follow", *options], stdout=file, stderr=subprocess.PIPE,
                    env=environment(),
                )
            )
        return processes[-1], out

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def lines_in(path):
    return path.read_bytes().count(b"\n")


def test_read_prints_every_generation_of_shards_in_order(writer, penstock):
    writer.reshard_and_write()
    result = penstock("read", *writer.place)
    assert result.returncode == 0, result.stderr
    writer.require(result.stdout)
    shards = {json.loads(line)["shard"] for line in penstock("read", *writer.place, "--format", "json").stdout.splitlines()}
    assert len(shards) >= 8


def test_read_follows_shards_that_are_split_and_merged_meanwhile(writer, follow):
    process, out = follow()
    writer.write()
    until(lambda: lines_in(out) == writer.rounds * len(KEYS), 10, lambda: lines_in(out))
    for _ in range(2):
        writer.reshard_and_write()
        writer.kinesis.update_shard_count(StreamName="logs", TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    writer.write()
    until(lambda: lines_in(out) >= writer.rounds * len(KEYS), 20, lambda: lines_in(out))
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    writer.require(out.read_bytes())


def test_read_from_the_latest_record_on_begins_with_the_open_shards_and_goes_on_with_their_children(writer, follow):
    writer.reshard_and_write()
    first = writer.rounds
    process, out = follow("--from", "latest")
    probes = 0

    def begun():
        # Only what is written behind the iterators is seen.
        nonlocal first, probes
        if lines_in(out):
            return True
        writer.write(1)
        probes += 1
        time.sleep(0.1)
        return False

    until(begun, 10, "the reader to begin")
    process.send_signal(signal.SIGSTOP)
    writer.reshard_and_write()
    process.send_signal(signal.SIGCONT)
    key = KEYS[0].encode() + b" "

    def last():
        numbers = [int(line.split()[1]) for line in out.read_bytes().splitlines() if line.startswith(key)]
        return numbers and numbers[-1] == writer.rounds - 1

    until(last, 15, lambda: out.read_bytes()[-200:])
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    numbers = {}
    for line in out.read_bytes().splitlines():
        name, number = line.split()
        numbers.setdefault(name, []).append(int(number))
    assert len(numbers) == len(KEYS)
    for found in numbers.values():
        assert found[0] >= first and found == list(range(found[0], writer.rounds))
