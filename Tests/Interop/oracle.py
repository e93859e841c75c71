"""Knows what was sent, reads back what arrived, and says what is missing.

Every line carries its source, its number within the source, and a CRC of the whole, so that a line that comes back can be
counted, and a damaged one is told from one that was never sent:

    s0003 0000001234 9f3c5a10 10.2.3.4 - - [21/Nov/2026:08:00:00 +0000] "GET /api/v2/orders/4711/items HTTP/1.1" 200 …

A source is a file, a socket's sender, or whatever else numbers its lines. Streams are read by boto3, aggregates are taken
apart by aws_kinesis_agg, shard by shard, each user record's hash key compared with the range of the shard it was read from.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import multiprocessing
import random
import re
import zlib
from array import array

import boto3
from aws_kinesis_agg.deaggregator import iter_deaggregate_records
from botocore.config import Config

REGION = "us-east-1"
LINE = re.compile(rb"s(\d{4}) (\d{10}) ([0-9a-f]{8}) (.*)", re.DOTALL)
_NUMBER_BITS = 40


def client(url, *, attempts=3, read_timeout=60, **options):
    """boto3 for an endpoint on loopback; the key can be anything there."""
    options = {"aws_access_key_id": "test", "aws_secret_access_key": "test"} | options
    config = Config(retries={"total_max_attempts": attempts}, read_timeout=read_timeout, max_pool_connections=4)
    return boto3.client("kinesis", endpoint_url=url, region_name=REGION, config=config, **options)


# Sending


def _payloads(seed, count=499):
    """Rests of lines as a busy web service writes them: with head and line end about 217 bytes."""
    chance = random.Random(seed)
    agents = [
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) Mobile/15E148",
        "curl/8.16.0",
    ]
    return [
        '10.%d.%d.%d - - [21/Nov/2026:08:%02d:%02d +0000] "%s /api/v2/orders/%d/items HTTP/1.1" %d %d "%s" "%s"'.encode()
        % tuple(
            value.encode() if isinstance(value, str) else value
            for value in (
                chance.randrange(256), chance.randrange(256), chance.randrange(256), chance.randrange(60),
                chance.randrange(60), chance.choice(["GET", "GET", "POST", "DELETE"]), chance.randrange(10**6),
                chance.choice([200, 200, 201, 404, 503]), chance.randrange(10**5),
                chance.choice(["-", "https://shop.example.com/checkout"]), chance.choices(agents, [3, 2, 1])[0],
            )
        )
        for _ in range(count)
    ]


class Source:
    """A writer of numbered lines: knows how many it has written."""

    def __init__(self, number, seed=0):
        self.number = number
        self.written = 0
        self._payloads = _payloads(seed * 10_000 + number)

    def line(self, number):
        """A line with its line end."""
        payload = self._payloads[number * 7919 % len(self._payloads)]
        text = b"s%04d %010d" % (self.number, number)
        return b"%s %08x %s\n" % (text, zlib.crc32(payload, zlib.crc32(text)), payload)

    def lines(self, count):
        """The next `count` lines, each with its line end."""
        yield from map(self.line, range(self.written, self.written + count))
        self.written += count

    def write(self, path, count, mode="ab"):
        """Appends the next `count` lines to a file."""
        with open(path, mode, buffering=1 << 20) as file:
            file.writelines(self.lines(count))


def parse(data):
    """The source and number of a line, or None if it is not one that any source wrote."""
    found = LINE.fullmatch(data)
    if not found:
        return None
    if zlib.crc32(found[4], zlib.crc32(data[:16])) != int(found[3], 16):
        return None
    return int(found[1]), int(found[2])


# Receiving


@dataclasses.dataclass(frozen=True)
class UserRecord:
    data: bytes
    partition_key: str
    explicit_hash_key: str | None
    is_aggregated: bool
    # Of the Kinesis record it came in.
    sequence_number: str
    arrival: float

    @property
    def hash_key(self):
        if self.explicit_hash_key is not None:
            return int(self.explicit_hash_key)
        return int.from_bytes(hashlib.md5(self.partition_key.encode()).digest(), "big")


def shards_of(kinesis, stream):
    """Every shard with its range, both ends included: {id: (first, last)}."""
    answer = kinesis.list_shards(StreamName=stream)
    shards = answer["Shards"]
    while "NextToken" in answer:
        answer = kinesis.list_shards(NextToken=answer["NextToken"])
        shards += answer["Shards"]
    return {
        shard["ShardId"]: tuple(int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
        for shard in shards
    }


# What a record's data are lines of: a decoder for each form that the agent is told to give them.


def plain(data):
    return [data]


def inflated(data):
    """A block of lines, or one record, packed by gzip."""
    return gzip.decompress(data).removesuffix(b"\n").split(b"\n")


def in_json(data):
    """A line as a member of an object."""
    return [json.loads(data)["line"].encode()]


def inflated_json(data):
    return [line for packed in inflated(data) for line in in_json(packed)]


def line_of(code):
    """The source and number of a line as a tally keeps it."""
    return code >> _NUMBER_BITS, code & ((1 << _NUMBER_BITS) - 1)


class ShardReader:
    """Reads a shard from its start, as far as it goes now; further when asked again."""

    def __init__(self, kinesis, stream, shard):
        self._kinesis = kinesis
        self._iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]

    def kinesis_records(self):
        quiet = 0
        while self._iterator is not None:
            answer = self._kinesis.get_records(ShardIterator=self._iterator, Limit=10_000)
            self._iterator = answer.get("NextShardIterator")
            yield from answer["Records"]
            # moto counts its lag in another way: two empty answers are an end everywhere.
            quiet = 0 if answer["Records"] else quiet + 1
            if quiet == 2 or (quiet == 1 and answer.get("MillisBehindLatest") == 0):
                return

    def user_records(self):
        for record in self.kinesis_records():
            arrival = record["ApproximateArrivalTimestamp"].timestamp()
            for user in iter_deaggregate_records([record], data_format="Boto3"):
                user = user["kinesis"]
                is_aggregated = user.get("aggregated", False)
                yield UserRecord(
                    base64.b64decode(user["data"]) if is_aggregated else user["data"],
                    user["partitionKey"],
                    user.get("explicitHashKey"),
                    is_aggregated,
                    user["sequenceNumber"],
                    arrival,
                )


def by_shard(url, stream, read):
    """(a shard's range, record) of everything that `read`, a method of ShardReader, gives: for small streams."""
    kinesis = client(url)
    for shard, bounds in shards_of(kinesis, stream).items():
        for record in read(ShardReader(kinesis, stream, shard)):
            yield bounds, record


def user_records(url, stream):
    """All user records of a stream, shard by shard: for small ones."""
    return [record for _, record in by_shard(url, stream, ShardReader.user_records)]


@dataclasses.dataclass
class ShardTally:
    """What came out of one shard."""

    shard: str
    # The shard's hash keys, both ends included.
    bounds: tuple
    # source << 40 | number, as they were read.
    lines: array = dataclasses.field(default_factory=lambda: array("Q"))
    corrupted: list = dataclasses.field(default_factory=list)
    # Whether it reads as the KCL does, which drops an aggregate whole if any record in it belongs to another shard: where
    # shards are split, some are stored so, and must come again. Otherwise every such record is misrouted.
    drops: bool = False
    # Makes lines of a record's data.
    decoder: callable = plain
    dropped: int = 0
    misrouted: int = 0
    kinesis_records: int = 0
    aggregates: int = 0
    bytes: int = 0
    partition_keys: set = dataclasses.field(default_factory=set)
    # Hash keys come again and again: whether each is in place is decided once.
    in_place: dict = dataclasses.field(default_factory=dict, repr=False)

    def take(self, record):
        """Counts a Kinesis record."""
        self.kinesis_records += 1
        self.bytes += len(record["Data"])
        is_first = True
        if self.drops and self._is_dropped(record):
            self.dropped += 1
            return
        for user in iter_deaggregate_records([record], data_format="Boto3"):
            user = user["kinesis"]
            key, explicit = user["partitionKey"], user.get("explicitHashKey")
            if user.get("aggregated"):
                data = base64.b64decode(user["data"])
                self.aggregates += is_first
                is_first = False
                self.misrouted += not self._fits(key, explicit)
            else:
                # Plain records lie where Kinesis put them, and their hash key is not told.
                data = user["data"]
            for text in self.decoder(data):
                line = parse(text)
                if line is None:
                    self.corrupted.append(text[:100])
                else:
                    self.lines.append(line[0] << _NUMBER_BITS | line[1])
        self.partition_keys.add(key)

    def _fits(self, key, explicit):
        fits = self.in_place.get((key, explicit))
        if fits is None:
            hashed = explicit if explicit is not None else int(hashlib.md5(key.encode()).hexdigest(), 16)
            fits = self.in_place[key, explicit] = self.bounds[0] <= int(hashed) <= self.bounds[1]
        return fits

    def _is_dropped(self, record):
        users = [user["kinesis"] for user in iter_deaggregate_records([record], data_format="Boto3")]
        return any(
            user.get("aggregated") and not self._fits(user["partitionKey"], user.get("explicitHashKey")) for user in users
        )


def _tally(url, stream, shard, bounds, drops, decoder):
    """Reads one shard; runs in a process of its own."""
    result = ShardTally(shard, bounds, drops=drops, decoder=decoder)
    for record in ShardReader(client(url), stream, shard).kinesis_records():
        result.take(record)
    return result


class Loss(AssertionError):
    """A line is lost, or not what was written, or not where it belongs."""


def require(condition, text):
    """Like `assert`, for what says that nothing is lost."""
    if not condition:
        raise Loss(text)


@dataclasses.dataclass
class Verdict:
    """What went in, what came out."""

    written: int
    arrived: int
    lost: list
    duplicated: int
    corrupted: list
    misrouted: int
    # Lines behind a later one of their source, within a shard; and sources found in several shards.
    out_of_order: int
    scattered: int
    shards: list

    @property
    def kinesis_records(self):
        return sum(shard.kinesis_records for shard in self.shards)

    @property
    def aggregates(self):
        return sum(shard.aggregates for shard in self.shards)

    @property
    def dropped(self):
        """Aggregates that the KCL drops."""
        return sum(shard.dropped for shard in self.shards)

    def __str__(self):
        return (
            f"{self.written} written, {self.arrived} arrived in {self.kinesis_records} records: lost {len(self.lost)}, "
            f"duplicated {self.duplicated}, corrupted {len(self.corrupted)}, misrouted {self.misrouted}"
        )

    def require_exact(self):
        self.require_nothing_lost()
        assert self.duplicated == 0, f"{self}"
        assert self.arrived == self.written, f"{self}"

    def require_nothing_lost(self):
        is_whole = not (self.lost or self.corrupted or self.misrouted)
        require(is_whole, f"{self}; the first lost: {self.lost[:5]}, corrupted: {self.corrupted[:5]}")


def verify(url, stream, sources, processes=2, drops=False, decoder=plain):
    """Reads the whole stream and compares it with what the sources wrote; `drops`: as the KCL reads it."""
    shards = shards_of(client(url), stream)
    jobs = [(url, stream, shard, bounds, drops, decoder) for shard, bounds in shards.items()]
    # Forked from here, a process would share our connections: each starts afresh.
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        tallies = pool.starmap(_tally, jobs, chunksize=1)
    return judge(sources, tallies)


def judge(sources, tallies):
    counts = {source.number: bytearray(source.written) for source in sources}
    arrived = out_of_order = duplicated = 0
    corrupted = [data for tally in tallies for data in tally.corrupted]
    seen_in = {}
    for tally in tallies:
        latest = {}
        for line in tally.lines:
            source, number = line_of(line)
            arrived += 1
            count = counts.get(source)
            if count is None or number >= len(count):
                corrupted.append(f"s{source:04} {number} was never written".encode())
                continue
            if count[number]:
                duplicated += 1
            count[number] = min(255, count[number] + 1)
            if number < latest.get(source, -1):
                out_of_order += 1
            else:
                latest[source] = number
        for source in latest:
            seen_in.setdefault(source, set()).add(tally.shard)
    lost = []
    for source, count in counts.items():
        at = count.find(0)
        while at >= 0:
            lost.append((source, at))
            at = count.find(0, at + 1)
    return Verdict(
        written=sum(source.written for source in sources),
        arrived=arrived + len(corrupted),
        lost=lost,
        duplicated=duplicated,
        corrupted=corrupted,
        misrouted=sum(tally.misrouted for tally in tallies),
        out_of_order=out_of_order,
        scattered=sum(len(shards) > 1 for shards in seen_in.values()),
        shards=tallies,
    )
