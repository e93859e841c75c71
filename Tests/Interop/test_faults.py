"""The faulty Kinesis itself: what it stored is what it acknowledged and what it says may come again."""

import random

import faults
import oracle
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from conftest import until


@pytest.mark.parametrize("fault", dict.fromkeys([faults.none, *faults.FAULTS]), ids=lambda fault: fault.__name__)
def test_what_a_fault_stores_is_acknowledged_or_may_come_again(local_kinesis, stream, chance, monkeypatch, fault):
    monkeypatch.setattr(faults, "FAULTS", [fault])
    unknown = []
    kinesis = faults.FaultyKinesis(local_kinesis.url, random.Random(chance.random()), unknown.extend, timeout=10)
    kinesis.likelihood = 1
    # The client closes its connection as soon as it has its answer.
    kinesis.agent_is_killed()
    source = oracle.Source(1)
    records = [{"PartitionKey": "a", "Data": line.rstrip(b"\n")} for line in source.lines(20)]
    results = []
    client = oracle.client(kinesis.url, read_timeout=1, attempts=1)
    try:
        results = client.put_records(StreamName=stream, Records=records).get("Records", [])
    except (BotoCoreError, ClientError):
        pass
    finally:
        client.close()
        until(lambda: kinesis.is_idle, 15, "the call to end")
        kinesis.stop()
    # Results that cannot be assigned to records say nothing.
    if len(results) != len(records):
        results = []
    acknowledged = [(1, at) for at, result in enumerate(results) if "ErrorCode" not in result]
    stored = [oracle.parse(record.data) for record in oracle.user_records(local_kinesis.url, stream)]
    assert sorted(stored) == sorted(acknowledged + unknown)
    assert kinesis.counts.total() == kinesis.counts[fault.__name__]
