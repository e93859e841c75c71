"""The service's limits in the embedded Kinesis, as boto3 meets them."""

import time

import pytest
from clients import client_for, code_of, error_of


def put(kinesis, hash_keys, size=10):
    """The error codes of a call's records, in their order; None for those that were stored."""
    entries = [{"PartitionKey": "k", "ExplicitHashKey": str(key), "Data": b"x" * (size - 1)} for key in hash_keys]
    answer = kinesis.put_records(StreamName="logs", Records=entries)
    codes = [record.get("ErrorCode") for record in answer["Records"]]
    assert answer["FailedRecordCount"] == sum(code is not None for code in codes)
    return codes


def test_a_shard_that_is_limited_to_nothing_throttles_only_itself(start_local):
    kinesis = client_for(start_local("logs:2", "--shard-limit=logs:1=0").url)
    codes = put(kinesis, [0, 2**128 - 1] * 100)
    assert codes == [None, "ProvisionedThroughputExceededException"] * 100
    code, message = error_of(
        kinesis.put_record, StreamName="logs", PartitionKey="k", ExplicitHashKey=str(2**128 - 1), Data=b""
    )
    assert code == "ProvisionedThroughputExceededException"
    assert message == "Rate exceeded for shard shardId-000000000001 in stream logs under account 000000000000."


def test_a_shard_takes_its_rate_and_no_more(start_local, figure):
    def attempt():
        kinesis = client_for(start_local("logs:1", "--enforce-limits").url)
        began = time.monotonic()
        stored = 0
        while (latest := time.monotonic() - began) < 3:
            stored += put(kinesis, [0] * 100).count(None)
        seconds = time.monotonic() - began
        figure(f"{stored} records in {seconds:.2f} s")
        assert stored <= 1000 + 1000 * (seconds + 0.01)
        return stored > 1000 + 1000 * latest * 0.98

    # Where nobody asks for a second what the shard would have taken is gone: others use this machine, too.
    assert any(attempt() for _ in range(3))


def test_calls_are_limited_as_in_the_service(start_local):
    kinesis = client_for(start_local("logs:1", "--enforce-limits").url)
    with pytest.raises(kinesis.exceptions.LimitExceededException):
        for _ in range(500):
            kinesis.describe_stream_summary(StreamName="logs")
    time.sleep(0.1)
    kinesis.describe_stream_summary(StreamName="logs")
    for target in (2, 3, 2, 3, 2, 3, 2, 3, 2, 3):
        kinesis.update_shard_count(StreamName="logs", TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        time.sleep(0.11)
    assert code_of(
        kinesis.update_shard_count, StreamName="logs", TargetShardCount=2, ScalingType="UNIFORM_SCALING"
    ) == "LimitExceededException"


def test_a_limit_that_makes_no_sense_is_refused(penstock):
    for words in (["--shard-limit", "logs"], ["--shard-limit", "logs:0=-1"], ["--shard-limit", "logs:x=1"]):
        result = penstock("local", "--port", 0, "--stream", "logs:1", *words)
        assert result.returncode == 64 and b"--shard-limit takes STREAM:SHARD=PERCENT" in result.stderr
    result = penstock("local", "--port", 0, "--stream", "logs:1", "--shard-limit", "logs:7=1")
    assert result.returncode == 69 and b"cannot limit shard 7 of logs: there is none" in result.stderr
