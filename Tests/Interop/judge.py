"""Reads a stream while it is written, counts every line, and knows which of them may have come twice.

It knows neither who writes lines nor what disturbs their delivery. Whoever does tells it what may come again: faults what
was stored though the agent cannot know it, senders and the spool what a dead agent left to be sent. And it is told what
was promised to be in the stream, and holds the promise against the stream.
"""

import dataclasses
import datetime
import threading
import time
from array import array

import oracle


class _Count:
    """A source's lines: how often each came, how often it may have come, and when it came last."""

    def __init__(self):
        self.copies = bytearray()
        self.allowed = bytearray()
        # In seconds of the judge's clock.
        self.arrivals = array("f")

    def grow(self, size):
        more = size - len(self.copies)
        if more > 0:
            self.copies.extend(bytes(more))
            self.allowed.extend(b"\x01" * more)
            self.arrivals.frombytes(bytes(4 * more))


@dataclasses.dataclass
class Verdict:
    written: int
    arrived: int
    lost: list
    corrupted: list
    misrouted: int
    duplicated: int
    # Lines that nobody expected any more.
    written_off: int
    # Lines that came more often than anything explains: (source, number, copies, allowed).
    unexplained: list
    # Promised to be in the stream, and not there when the promise was given.
    broken_promises: list

    def __str__(self):
        return (
            f"{self.written} written, {self.arrived} arrived: lost {len(self.lost)}, corrupted {len(self.corrupted)}, "
            f"misrouted {self.misrouted}, duplicated {self.duplicated}, of them unexplained {len(self.unexplained)}"
            + (f", written off {self.written_off}" if self.written_off else "")
        )

    def require(self):
        oracle.require(not self.lost, f"{self}; lost: {ranges(self.lost)}")
        oracle.require(not self.broken_promises, f"{self}; said to be delivered, and not there: {self.broken_promises[:5]}")
        oracle.require(not self.corrupted and not self.misrouted, f"{self}; the first corrupted: {self.corrupted[:5]}")
        repeated = ranges([line[:2] for line in self.unexplained])
        assert not self.unexplained, f"{self}; more often than explained: {repeated}"


def ranges(lines):
    """Lines as stretches, to be read by people: the first of them."""
    found = []
    for source, number in sorted(lines):
        if found and found[-1][0] == source and found[-1][2] == number - 1:
            found[-1][2] = number
        else:
            found.append([source, number, number])
    text = ", ".join(f"s{source:04} {first}–{last}" for source, first, last in found[:8])
    return text + (f", … ({len(found)} stretches)" if len(found) > 8 else "")


class Judge:
    def __init__(self, url, stream, sources, decoder=oracle.plain):
        self._kinesis, self._decoder = oracle.client(url), decoder
        self._stream = stream
        self._readers = {}
        self._sources = sources
        self._counts = {source.number: _Count() for source in sources}
        self._written_off = {source.number: set() for source in sources}
        self._corrupted = []
        self._promises, self._broken = [], []
        # Lines that had come more often than they might when they were read; a fault may yet explain them. With when
        # they came last, and before.
        self._suspects = {}
        self._epoch = time.time()
        self._lock = threading.Lock()
        self.arrived = 0
        # How many may come above one of each line.
        self.bound = 0

    @property
    def dropped(self):
        """Aggregates that the KCL drops: stored while their shard was split or merged."""
        return sum(tally.dropped for _, tally in self._readers.values())

    @property
    def backlog(self):
        """Lines that were written and have not arrived, more or less."""
        return sum(source.written for source in self._sources) - self.arrived - sum(map(len, self._written_off.values()))

    def read(self):
        """Reads as far as the stream goes now."""
        with self._lock:
            promises, self._promises = self._promises, []
            for shard, bounds in oracle.shards_of(self._kinesis, self._stream).items():
                if shard not in self._readers:
                    reader = oracle.ShardReader(self._kinesis, self._stream, shard)
                    self._readers[shard] = reader, oracle.ShardTally(shard, bounds, drops=True, decoder=self._decoder)
            for reader, tally in self._readers.values():
                for record in reader.kinesis_records():
                    tally.take(record)
                    self._count(tally.lines, record["ApproximateArrivalTimestamp"].timestamp() - self._epoch)
                    del tally.lines[:]
            for source, first, end in promises:
                copies = self._counts[source].copies[first:end]
                missing = [first + place for place, count in enumerate(copies) if not count]
                missing += range(first + len(copies), end)
                if missing:
                    self._broken.append(f"of {first}–{end - 1} " + ranges((source, number) for number in missing))

    def _count(self, lines, arrival):
        written = {source.number: source.written for source in self._sources}
        for line in lines:
            source, number = oracle.line_of(line)
            if number >= written.get(source, 0):
                self._corrupted.append(f"s{source:04} {number} was never written".encode())
                continue
            count = self._counts[source]
            if number >= len(count.copies):
                count.grow(written[source])
            if count.copies[number] == 0:
                self.arrived += 1
            count.copies[number] = min(255, count.copies[number] + 1)
            if count.copies[number] > count.allowed[number]:
                self._suspects[source, number] = (count.arrivals[number], arrival)
            count.arrivals[number] = arrival

    # What may come again

    def allow(self, lines):
        """Each of these (source, number) may come once more: it came, and the agent cannot know."""
        with self._lock:
            for source, number in lines:
                count = self._counts[source]
                count.grow(number + 1)
                self._allow(count, number, count.allowed[number] + 1)

    def will_come(self, lines):
        """The agent is dead, and all that it sent has been read: each of these will come again, as often as it says.

        Lines as {(source, number): times}. What has come more often than it might stays too often.
        """
        with self._lock:
            for (source, number), times in lines.items():
                count = self._counts[source]
                count.grow(number + 1)
                copies = min(count.copies[number], count.allowed[number])
                self._allow(count, number, max(count.allowed[number], copies + times))

    def write_off(self, lines):
        """Each of these (source, number) went with a dead agent, as the promises allow: it must not come any more, either."""
        with self._lock:
            for source, number in lines:
                count = self._counts[source]
                count.grow(number + 1)
                count.allowed[number] = 0
                self._written_off[source].add(number)

    def _allow(self, count, number, times):
        times = min(255, times)
        self.bound += times - count.allowed[number]
        count.allowed[number] = times

    def arrived_of(self, stretches):
        """Lines of these (source, first, end) that have arrived, with the time of each."""
        found = {}
        with self._lock:
            for source, first, end in stretches:
                count = self._counts[source]
                for number, copies in enumerate(count.copies[first:end], first):
                    if copies:
                        found[source, number] = self._epoch + count.arrivals[number]
        return found

    def require_no_surprise(self, where):
        """All that came is explained by what was told before."""
        with self._lock:
            suspects, self._suspects = self._suspects, {}
            unexplained = {
                (source, number): when for (source, number), when in suspects.items()
                if self._counts[source].copies[number] > self._counts[source].allowed[number]
            }
        corrupted = self.corrupted
        assert not corrupted, f"{where}: nobody wrote {corrupted[:3]}"
        assert not unexplained, f"{where}: more often than explained: {ranges(unexplained)}; " + self._times(unexplained)
        assert not self._broken, f"{where}: said to be delivered, and not there: {self._broken[:5]}"

    def _times(self, lines):
        def moment(seconds):
            return datetime.datetime.fromtimestamp(self._epoch + seconds, datetime.UTC).strftime("%H:%M:%S.%f")[:-3]

        def stretch(times):
            return f"{moment(min(times))} to {moment(max(times))}"

        before, last = zip(*lines.values())
        return f"came at {stretch(before)}, and again at {stretch(last)}"

    # What was promised

    def promised(self, source, first, end):
        """All these lines are in the stream now, somebody said."""
        with self._lock:
            self._promises.append((source, first, end))

    @property
    def corrupted(self):
        return self._corrupted + [data for _, tally in self._readers.values() for data in tally.corrupted]

    def verdict(self):
        self.read()
        lost, unexplained, duplicated = [], [], 0
        for source in self._sources:
            count = self._counts[source.number]
            count.grow(source.written)
            at = count.copies.find(0)
            while at >= 0:
                if at not in self._written_off[source.number]:
                    lost.append((source.number, at))
                at = count.copies.find(0, at + 1)
            for number, (copies, allowed) in enumerate(zip(count.copies, count.allowed)):
                if copies > 1:
                    duplicated += copies - 1
                if copies > allowed:
                    unexplained.append((source.number, number, copies, allowed))
        return Verdict(
            written=sum(source.written for source in self._sources), arrived=self.arrived, lost=lost, corrupted=self.corrupted,
            misrouted=sum(tally.misrouted for _, tally in self._readers.values()), duplicated=duplicated, unexplained=unexplained,
            written_off=sum(map(len, self._written_off.values())),
            broken_promises=self._broken,
        )
