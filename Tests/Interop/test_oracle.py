"""The oracle itself: what it counts as lost, duplicated, corrupted, misrouted or out of order."""

import hashlib
import zlib

import judge
import oracle
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator


@pytest.fixture
def put(local_kinesis, stream):
    """Puts an aggregate of lines into a shard, as a good or a bad agent would."""
    kinesis = oracle.client(local_kinesis.url)
    shards = list(oracle.shards_of(kinesis, stream).values())

    def put(lines, shard=0, hash_key=None):
        aggregate = RecordAggregator(1 << 20)
        for line in lines:
            aggregate.add_user_record("a", line.rstrip(b"\n"), str(shards[shard][0] if hash_key is None else hash_key))
        data = aggregate.clear_and_get().get_contents()[2]
        kinesis.put_record(
            StreamName=stream, PartitionKey="a", Data=data, ExplicitHashKey=str(shards[shard][0])
        )

    put.shards = shards
    return put


def test_what_a_good_agent_sends_is_exact(put, local_kinesis, stream):
    source = oracle.Source(3)
    lines = list(source.lines(100))
    put(lines[:40])
    put(lines[40:], shard=2)
    verdict = oracle.verify(local_kinesis.url, stream, [source])
    verdict.require_exact()
    assert (verdict.out_of_order, verdict.scattered, verdict.aggregates) == (0, 1, 2)


def test_a_lost_line_is_named(put, local_kinesis, stream):
    source = oracle.Source(3)
    lines = list(source.lines(100))
    put(lines[:50] + lines[51:])
    verdict = oracle.verify(local_kinesis.url, stream, [source])
    assert verdict.lost == [(3, 50)]
    with pytest.raises(AssertionError):
        verdict.require_nothing_lost()


def test_a_duplicate_is_counted_and_so_is_a_line_behind_a_later_one(put, local_kinesis, stream):
    source = oracle.Source(3)
    lines = list(source.lines(10))
    put(lines)
    put([lines[4]])
    verdict = oracle.verify(local_kinesis.url, stream, [source])
    assert (verdict.duplicated, verdict.out_of_order) == (1, 1)
    verdict.require_nothing_lost()
    with pytest.raises(AssertionError):
        verdict.require_exact()


@pytest.mark.parametrize("damage", [lambda line: line[:-5] + b"\n", lambda line: line.replace(b"HTTP", b"HTTQ")])
def test_a_damaged_line_is_corrupted_and_the_true_one_lost(put, local_kinesis, stream, damage):
    source = oracle.Source(3)
    lines = list(source.lines(10))
    put(lines[:5] + [damage(lines[5])] + lines[6:])
    verdict = oracle.verify(local_kinesis.url, stream, [source])
    assert (len(verdict.corrupted), verdict.lost) == (1, [(3, 5)])


def test_a_line_that_nobody_wrote_is_corrupted(put, local_kinesis, stream):
    source = oracle.Source(3)
    put(source.lines(10))
    put(oracle.Source(4).lines(1))
    assert len(oracle.verify(local_kinesis.url, stream, [source]).corrupted) == 1


@pytest.mark.parametrize("outside, count", [(0, 0), (1, 10)])
def test_a_range_includes_both_its_ends_and_nothing_beyond(put, local_kinesis, stream, outside, count):
    source = oracle.Source(3)
    put(source.lines(10), shard=1, hash_key=put.shards[1][1] + outside)
    assert oracle.verify(local_kinesis.url, stream, [source]).misrouted == count


def test_lines_are_as_long_as_real_ones_and_carry_their_checksum():
    lines = list(oracle.Source(3, seed=7).lines(5000))
    assert 205 < sum(map(len, lines)) / len(lines) < 230
    assert oracle.parse(lines[77][:-1]) == (3, 77)
    assert lines[77][17:25] == b"%08x" % zlib.crc32(lines[77][:16] + lines[77][26:-1])
    assert len({hashlib.md5(line).digest() for line in lines}) == 5000


# The judge, who reads while lines are written


@pytest.fixture
def source():
    return oracle.Source(3)


@pytest.fixture
def judged(local_kinesis, stream, source):
    return judge.Judge(local_kinesis.url, stream, [source])


def test_a_line_may_come_as_often_as_somebody_has_allowed(judged, put, source):
    lines = list(source.lines(10))
    put(lines)
    judged.read()
    assert (judged.arrived, judged.backlog) == (10, 0)
    judged.allow([(3, 4)])
    put(lines[4:6])
    verdict = judged.verdict()
    assert (verdict.duplicated, judged.bound) == (2, 1)
    assert verdict.unexplained == [(3, 5, 2, 1)]
    with pytest.raises(AssertionError, match="s0003 5–5"):
        verdict.require()


def test_what_a_dead_agent_left_comes_as_often_as_it_lies_somewhere(judged, put, source):
    lines = list(source.lines(10))
    put(lines[:6])
    judged.read()
    assert list(judged.arrived_of([(3, 4, 10)])) == [(3, 4), (3, 5)]
    # The sixth has come and is in its file; the seventh has not come, and is in its file and in the spool.
    judged.will_come({(3, 5): 1, (3, 6): 2})
    # An agent that dies again without having sent anything leaves the same.
    judged.will_come({(3, 5): 1, (3, 6): 2})
    assert judged.bound == 2
    put(lines[5:])
    put(lines[6:7])
    verdict = judged.verdict()
    assert (verdict.duplicated, verdict.unexplained) == (2, [])


def test_what_came_too_often_before_a_death_is_not_excused_by_it(judged, put, source):
    lines = list(source.lines(10))
    put(lines)
    put(lines[:1])
    judged.read()
    judged.will_come({(3, 0): 1})
    put(lines[:1])
    assert judged.verdict().unexplained == [(3, 0, 3, 2)]


@pytest.mark.parametrize("end, broken", [(6, []), (7, ["of 2–6 s0003 6–6"])])
def test_a_promise_counts_when_it_is_given(judged, put, source, end, broken):
    lines = list(source.lines(10))
    put(lines[:6])
    judged.promised(3, 2, end)
    judged.read()
    put(lines[6:])
    verdict = judged.verdict()
    assert verdict.lost == []
    assert verdict.broken_promises == broken


def test_a_lost_line_is_named(judged, put, source):
    lines = list(source.lines(10))
    put(lines[:3] + lines[5:])
    with pytest.raises(AssertionError, match="s0003 3–4"):
        judged.verdict().require()
