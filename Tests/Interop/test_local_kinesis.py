"""The embedded Kinesis, as boto3 sees it: it must not notice that this is not AWS."""

import datetime
import hashlib
import os
import uuid

import pytest
from botocore.exceptions import WaiterError
from clients import client_for, code_of, error_of

ACCOUNT = "000000000000"


@pytest.fixture
def stream(kinesis):
    """A stream of three shards with a name of its own."""
    name = f"test-{uuid.uuid4()}"
    kinesis.create_stream(StreamName=name, ShardCount=3)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 3})
    yield name
    try:
        kinesis.delete_stream(StreamName=name)
    except kinesis.exceptions.ResourceNotFoundException:
        pass  # a test deleted it


def read(kinesis, stream, shard, kind="TRIM_HORIZON", **arguments):
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **arguments)
    return kinesis.get_records(ShardIterator=iterator["ShardIterator"])


def shards_of(kinesis, stream):
    return kinesis.list_shards(StreamName=stream)["Shards"]


# Streams


def test_every_answer_has_the_metadata_of_aws(kinesis):
    metadata = kinesis.list_streams()["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == 200
    assert uuid.UUID(metadata["RequestId"])
    headers = metadata["HTTPHeaders"]
    assert headers["content-type"] == "application/x-amz-json-1.1"
    assert headers["x-amz-id-2"] and headers["date"].endswith("GMT") and int(headers["content-length"]) > 0


def test_a_stream_is_described_as_it_was_created(kinesis, stream):
    description = kinesis.describe_stream(StreamName=stream)["StreamDescription"]
    assert description["StreamName"] == stream
    assert description["StreamARN"] == f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}"
    assert description["StreamStatus"] == "ACTIVE"
    assert description["StreamModeDetails"] == {"StreamMode": "PROVISIONED"}
    assert description["RetentionPeriodHours"] == 24
    assert description["EncryptionType"] == "NONE"
    assert len(description["Shards"]) == 3 and not description["HasMoreShards"]
    age = datetime.datetime.now(datetime.timezone.utc) - description["StreamCreationTimestamp"]
    assert abs(age.total_seconds()) < 60
    summary = kinesis.describe_stream_summary(StreamARN=description["StreamARN"])["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 3 and summary["ConsumerCount"] == 0
    assert summary["MaxRecordSizeInKiB"] == 1024


def test_an_on_demand_stream_has_four_shards(kinesis):
    name = f"demand-{uuid.uuid4()}"
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"}
    assert summary["OpenShardCount"] == 4
    kinesis.delete_stream(StreamName=name)


def test_waiters_see_streams_come_and_go(kinesis, stream):
    quick = {"Delay": 1, "MaxAttempts": 2}
    kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig=quick)
    kinesis.delete_stream(StreamName=stream)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=stream, WaiterConfig=quick)
    with pytest.raises(WaiterError):
        kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 0, "MaxAttempts": 1})


def test_paginators_list_everything_once(kinesis):
    prefix = uuid.uuid4().hex
    names = [f"{prefix}-{number}" for number in range(7)]
    for name in names:
        kinesis.create_stream(StreamName=name, ShardCount=5)
    pages = list(kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 2}))
    assert all(len(page["StreamNames"]) <= 2 for page in pages)
    found = [name for page in pages for name in page["StreamNames"] if name.startswith(prefix)]
    assert found == names
    summaries = [each["StreamName"] for page in pages for each in page["StreamSummaries"]]
    assert [name for name in summaries if name.startswith(prefix)] == names
    shards = ["shardId-%012d" % number for number in range(5)]
    # boto3's own paginator of ListShards sends the name beside the token, which the service refuses.
    pages = [kinesis.list_shards(StreamName=names[0], MaxResults=2)]
    while "NextToken" in pages[-1]:
        pages.append(kinesis.list_shards(NextToken=pages[-1]["NextToken"], MaxResults=2))
    assert [[shard["ShardId"] for shard in page["Shards"]] for page in pages] == [shards[:2], shards[2:4], shards[4:]]
    pages = kinesis.get_paginator("describe_stream").paginate(StreamName=names[0], PaginationConfig={"PageSize": 2})
    assert [shard["ShardId"] for page in pages for shard in page["StreamDescription"]["Shards"]] == shards
    after = kinesis.list_streams(ExclusiveStartStreamName=names[4])["StreamNames"]
    assert [name for name in after if name.startswith(prefix)] == names[5:]
    for name in names:
        kinesis.delete_stream(StreamName=name)


def test_list_shards_takes_a_name_or_a_token(kinesis, stream):
    token = kinesis.list_shards(StreamName=stream, MaxResults=1)["NextToken"]
    assert len(kinesis.list_shards(NextToken=token)["Shards"]) == 2
    assert code_of(kinesis.list_shards, StreamName=stream, NextToken=token) == "InvalidArgumentException"
    assert code_of(kinesis.list_shards) == "InvalidArgumentException"
    rest = kinesis.list_shards(StreamName=stream, ExclusiveStartShardId="shardId-000000000001")["Shards"]
    assert [shard["ShardId"] for shard in rest] == ["shardId-000000000002"]


@pytest.mark.parametrize(
    "shard_filter, count",
    [
        ({"Type": "AT_LATEST"}, 3),
        ({"Type": "AT_TRIM_HORIZON"}, 3),
        ({"Type": "FROM_TRIM_HORIZON"}, 3),
        ({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000"}, 2),
        ({"Type": "AT_TIMESTAMP", "Timestamp": datetime.datetime.now(datetime.timezone.utc)}, 3),
        ({"Type": "FROM_TIMESTAMP", "Timestamp": datetime.datetime.now(datetime.timezone.utc)}, 3),
    ],
)
def test_shard_filters_are_understood(kinesis, stream, shard_filter, count):
    assert len(kinesis.list_shards(StreamName=stream, ShardFilter=shard_filter)["Shards"]) == count


def test_shards_divide_the_hash_keys_without_a_gap(kinesis, stream):
    expected = 0
    for shard in shards_of(kinesis, stream):
        assert int(shard["HashKeyRange"]["StartingHashKey"]) == expected
        expected = int(shard["HashKeyRange"]["EndingHashKey"]) + 1
        number = shard["SequenceNumberRange"]["StartingSequenceNumber"]
        assert len(number) == 56 and number.startswith("49")
    assert expected == 2**128


# Records


def test_records_come_back_as_they_were_put(kinesis, stream):
    payloads = {f"key-{number}": os.urandom(number * 37) for number in range(100)}
    entries = [{"PartitionKey": key, "Data": data} for key, data in payloads.items()]
    answer = kinesis.put_records(StreamName=stream, Records=entries)
    assert answer["FailedRecordCount"] == 0
    found = {}
    for shard in shards_of(kinesis, stream):
        low, high = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
        numbers = []
        for record in read(kinesis, stream, shard["ShardId"])["Records"]:
            key = record["PartitionKey"]
            assert low <= int(hashlib.md5(key.encode()).hexdigest(), 16) <= high
            found[key] = record["Data"]
            numbers.append(record["SequenceNumber"])
            place = answer["Records"][int(key.split("-")[1])]
            assert (place["ShardId"], place["SequenceNumber"]) == (shard["ShardId"], record["SequenceNumber"])
            age = datetime.datetime.now(datetime.timezone.utc) - record["ApproximateArrivalTimestamp"]
            assert abs(age.total_seconds()) < 60
        assert numbers == sorted(set(numbers))
    assert found == payloads


def test_both_ends_of_a_range_belong_to_its_shard(kinesis, stream):
    # moto puts the last key of a range into the next shard.
    for shard in shards_of(kinesis, stream):
        for key in shard["HashKeyRange"].values():
            answer = kinesis.put_record(StreamName=stream, PartitionKey="a", ExplicitHashKey=key, Data=b"x")
            assert answer["ShardId"] == shard["ShardId"]


def test_a_stream_is_called_by_its_arn_too(kinesis, stream):
    arn = f"arn:aws:kinesis:us-east-1:{ACCOUNT}:stream/{stream}"
    # boto3 would route calls by ARN to a host of the account: the endpoint decides here.
    shard = kinesis.put_record(StreamARN=arn, PartitionKey="a", Data=b"1")["ShardId"]
    kinesis.put_records(StreamARN=arn, Records=[{"PartitionKey": "a", "Data": b"2"}])
    iterator = kinesis.get_shard_iterator(StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    records = kinesis.get_records(StreamARN=arn, ShardIterator=iterator["ShardIterator"])["Records"]
    assert [record["Data"] for record in records] == [b"1", b"2"]
    assert len(kinesis.list_shards(StreamARN=arn)["Shards"]) == 3
    assert kinesis.describe_stream(StreamARN=arn)["StreamDescription"]["StreamName"] == stream


def test_the_five_iterators_begin_where_they_should(kinesis, stream):
    shard = "shardId-000000000000"

    def put(data):
        return kinesis.put_record(StreamName=stream, PartitionKey="a", ExplicitHashKey="0", Data=data)["SequenceNumber"]

    first, second = put(b"1"), put(b"2")
    latest = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="LATEST")["ShardIterator"]
    third = put(b"3")
    assert int(first) < int(second) < int(third)

    def found(kind, **arguments):
        return b"".join(record["Data"] for record in read(kinesis, stream, shard, kind, **arguments)["Records"])

    assert found("TRIM_HORIZON") == b"123"
    assert found("LATEST") == b""
    assert found("AT_SEQUENCE_NUMBER", StartingSequenceNumber=second) == b"23"
    assert found("AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=second) == b"3"
    assert found("AT_TIMESTAMP", Timestamp=datetime.datetime(2020, 1, 1)) == b"123"
    answer = kinesis.get_records(ShardIterator=latest)
    assert [record["Data"] for record in answer["Records"]] == [b"3"]
    assert answer["MillisBehindLatest"] == 0
    assert kinesis.get_records(ShardIterator=answer["NextShardIterator"])["Records"] == []


def test_a_limit_leaves_the_rest_to_the_next_iterator(kinesis, stream):
    entries = [{"PartitionKey": "a", "ExplicitHashKey": "0", "Data": bytes([number])} for number in range(10)]
    kinesis.put_records(StreamName=stream, Records=entries)
    iterator = kinesis.get_shard_iterator(
        StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    counts = []
    while len(counts) < 4:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=4)
        counts.append((len(answer["Records"]), answer["MillisBehindLatest"] > 0))
        iterator = answer["NextShardIterator"]
    assert counts == [(4, True), (4, True), (2, False), (0, False)]


def test_the_largest_record_and_the_largest_call_are_taken(kinesis, stream):
    record = {"PartitionKey": "k", "Data": b"x" * ((1 << 20) - 1)}
    answer = kinesis.put_records(StreamName=stream, Records=[record] * 10)
    assert answer["FailedRecordCount"] == 0
    many = [{"PartitionKey": str(number), "Data": b""} for number in range(500)]
    assert len(kinesis.put_records(StreamName=stream, Records=many)["Records"]) == 500


# Errors


def test_error_classes_are_those_of_the_service(kinesis, stream):
    with pytest.raises(kinesis.exceptions.ResourceNotFoundException) as caught:
        kinesis.describe_stream(StreamName="missing")
    assert caught.value.response["Error"]["Message"] == f"Stream missing under account {ACCOUNT} not found."
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(kinesis.exceptions.ResourceInUseException):
        kinesis.create_stream(StreamName=stream, ShardCount=1)
    with pytest.raises(kinesis.exceptions.InvalidArgumentException):
        kinesis.get_records(ShardIterator="bm90IG9uZQ==")
    with pytest.raises(kinesis.exceptions.LimitExceededException):
        kinesis.create_stream(StreamName="too-many", ShardCount=100_000)
    for call in ("describe_stream", "describe_stream_summary", "list_shards", "delete_stream"):
        assert code_of(getattr(kinesis, call), StreamName="missing") == "ResourceNotFoundException"
    for arguments in ({"Data": b""}, {"PartitionKey": "k"}):
        assert code_of(kinesis.put_record, StreamName=stream, **arguments) == "ValidationException"


def test_validation_says_what_the_service_says(kinesis, stream):
    code, message = error_of(kinesis.put_record, StreamName="no spaces", PartitionKey="k", Data=b"")
    assert code == "ValidationException"
    assert message == (
        "1 validation error detected: Value 'no spaces' at 'streamName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
    )
    code, message = error_of(
        kinesis.put_record, StreamName=stream, PartitionKey="k", Data=b"", ExplicitHashKey=str(2**128)
    )
    assert code == "InvalidArgumentException"
    assert message.startswith("Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1].")
    assert code_of(kinesis.get_shard_iterator, StreamName=stream, ShardId="shardId-000000000009",
                   ShardIteratorType="LATEST") == "ResourceNotFoundException"
    assert code_of(kinesis.get_records, ShardIterator="x", Limit=10_001) == "ValidationException"
    assert code_of(kinesis.get_shard_iterator, StreamName=stream, ShardId="shardId-000000000000",
                   ShardIteratorType="AT_SEQUENCE_NUMBER") == "InvalidArgumentException"


def test_an_operation_that_does_not_exist_is_unknown(local_kinesis):
    import urllib.error
    import urllib.request

    request = urllib.request.Request(
        local_kinesis.url,
        data=b"{}",
        headers={"X-Amz-Target": "Kinesis_20131202.Nonsense", "Content-Type": "application/x-amz-json-1.1"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 400
    assert b"UnknownOperationException" in caught.value.read()


@pytest.fixture(scope="module")
def moto():
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield client_for(f"http://{host}:{port}")
    server.stop()


# Only what moto has right: it knows neither the lengths of keys nor those of calls.
@pytest.mark.parametrize(
    "call, arguments",
    [
        ("create_stream", {"StreamName": "same", "ShardCount": 1}),
        ("describe_stream", {"StreamName": "missing"}),
        ("describe_stream_summary", {"StreamName": "missing"}),
        ("delete_stream", {"StreamName": "missing"}),
        ("list_shards", {"StreamName": "missing"}),
        ("put_record", {"StreamName": "missing", "PartitionKey": "k", "Data": b""}),
        ("put_records", {"StreamName": "same", "Records": [{"PartitionKey": "k", "Data": b"x" * (1 << 20 | 1)}]}),
        ("put_records", {"StreamName": "same", "Records": [{"PartitionKey": "k", "Data": b""}] * 501}),
        ("get_shard_iterator", {"StreamName": "missing", "ShardId": "shardId-000000000000",
                                "ShardIteratorType": "LATEST"}),
        ("get_shard_iterator", {"StreamName": "same", "ShardId": "shardId-000000000099",
                                "ShardIteratorType": "LATEST"}),
    ],
)
def test_a_refused_call_has_the_error_code_that_moto_gives(kinesis, moto, call, arguments):
    for client in (kinesis, moto):
        try:
            client.create_stream(StreamName="same", ShardCount=2)
        except client.exceptions.ResourceInUseException:
            pass  # an earlier case made it
    assert code_of(getattr(kinesis, call), **arguments) == code_of(getattr(moto, call), **arguments)
