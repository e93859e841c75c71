"""Resharding the embedded Kinesis, as boto3 and a consumer see it."""

import datetime
import time
import uuid

import pytest
from clients import client_for, code_of, error_of
from conftest import until

MIDDLE = str(1 << 127)


@pytest.fixture
def name(kinesis):
    """A stream of two shards with a name of its own."""
    name = f"reshard-{uuid.uuid4()}"
    kinesis.create_stream(StreamName=name, ShardCount=2)
    yield name
    kinesis.delete_stream(StreamName=name)


def id_of(number):
    return f"shardId-{number:012}"


def arn_of(kinesis, name):
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]


def listed(kinesis, name, **filter):
    shards = kinesis.list_shards(StreamName=name, **({"ShardFilter": filter} if filter else {}))["Shards"]
    return [int(shard["ShardId"][-12:]) for shard in shards]


def put(kinesis, name, hash_key, data=b"x"):
    answer = kinesis.put_record(StreamName=name, PartitionKey="k", ExplicitHashKey=str(hash_key), Data=data)
    return int(answer["ShardId"][-12:])


def split(kinesis, name, number):
    shard = kinesis.list_shards(StreamName=name)["Shards"][number]["HashKeyRange"]
    middle = (int(shard["StartingHashKey"]) + int(shard["EndingHashKey"])) // 2 + 1
    kinesis.split_shard(StreamName=name, ShardToSplit=id_of(number), NewStartingHashKey=str(middle))


def read_all(kinesis, name):
    """Every record's data by shard, read as the KCL does: from the first shards on, children at their parents' end."""
    waiting = [id_of(number) for number in listed(kinesis, name, Type="AT_TRIM_HORIZON")]
    found = {}
    while waiting:
        shard = waiting.pop()
        if shard in found:
            continue
        found[shard] = []
        iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
        iterator = iterator["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator)
            found[shard] += [record["Data"] for record in answer["Records"]]
            waiting += [child["ShardId"] for child in answer.get("ChildShards", [])]
            if not answer["Records"]:
                break
            iterator = answer.get("NextShardIterator")
    return {int(shard[-12:]): data for shard, data in found.items()}


def test_a_split_and_a_merge_have_the_lineage_that_the_service_gives(kinesis, name):
    put(kinesis, name, MIDDLE, b"parent")
    split(kinesis, name, 1)
    kinesis.merge_shards(StreamName=name, ShardToMerge=id_of(0), AdjacentShardToMerge=id_of(2))
    shards = kinesis.list_shards(StreamName=name)["Shards"]
    lineage = [(shard.get("ParentShardId"), shard.get("AdjacentParentShardId")) for shard in shards]
    assert lineage == [(None, None), (None, None), (id_of(1), None), (id_of(1), None), (id_of(0), id_of(2))]
    closed = ["EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards]
    assert closed == [True, True, True, False, False]
    numbers = [shard["SequenceNumberRange"] for shard in shards]
    for child, parents in {2: [1], 3: [1], 4: [0, 2]}.items():
        for parent in parents:
            assert numbers[child]["StartingSequenceNumber"] > numbers[parent]["EndingSequenceNumber"]
    assert (put(kinesis, name, 0), put(kinesis, name, MIDDLE), put(kinesis, name, 2**128 - 1)) == (4, 4, 3)
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 2
    assert len(kinesis.describe_stream(StreamName=name)["StreamDescription"]["Shards"]) == 5


def test_the_end_of_a_closed_shard_names_its_children(kinesis, name):
    put(kinesis, name, 0)
    latest = kinesis.get_shard_iterator(StreamName=name, ShardId=id_of(0), ShardIteratorType="LATEST")["ShardIterator"]
    split(kinesis, name, 0)
    answer = kinesis.get_records(ShardIterator=latest)
    # boto3 gives no member for what is null.
    assert answer["Records"] == [] and "NextShardIterator" not in answer
    shards = kinesis.list_shards(StreamName=name)["Shards"]
    assert answer["ChildShards"] == [
        {"ShardId": id_of(number), "ParentShards": [id_of(0)], "HashKeyRange": shards[number]["HashKeyRange"]}
        for number in (2, 3)
    ]
    kinesis.merge_shards(StreamName=name, ShardToMerge=id_of(2), AdjacentShardToMerge=id_of(3))
    iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=id_of(3), ShardIteratorType="TRIM_HORIZON")
    answer = kinesis.get_records(ShardIterator=iterator["ShardIterator"])
    assert [child["ParentShards"] for child in answer["ChildShards"]] == [[id_of(2), id_of(3)]]


def test_filters_show_the_shards_of_their_time(kinesis, name):
    def now():
        # boto3 sends whole seconds: wait for one to begin.
        time.sleep(1.02 - time.time() % 1)
        return datetime.datetime.now(datetime.timezone.utc)

    before = now()
    kinesis.update_shard_count(StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    between = now()
    kinesis.update_shard_count(StreamName=name, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
    after = now()
    assert listed(kinesis, name) == list(range(8))
    assert listed(kinesis, name, Type="FROM_TRIM_HORIZON") == list(range(8))
    assert listed(kinesis, name, Type="AT_TRIM_HORIZON") == [0, 1]
    assert listed(kinesis, name, Type="AT_LATEST") == [6, 7]
    assert listed(kinesis, name, Type="AFTER_SHARD_ID", ShardId=id_of(4)) == [5, 6, 7]
    assert listed(kinesis, name, Type="AT_TIMESTAMP", Timestamp=before) == [0, 1]
    assert listed(kinesis, name, Type="AT_TIMESTAMP", Timestamp=between) == [2, 3, 4, 5]
    assert listed(kinesis, name, Type="AT_TIMESTAMP", Timestamp=after) == [6, 7]
    assert listed(kinesis, name, Type="FROM_TIMESTAMP", Timestamp=before) == list(range(8))
    assert listed(kinesis, name, Type="FROM_TIMESTAMP", Timestamp=between) == list(range(2, 8))
    assert listed(kinesis, name, Type="FROM_TIMESTAMP", Timestamp=after) == [6, 7]


def test_a_page_keeps_its_listing_s_filter(kinesis, name):
    kinesis.update_shard_count(StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    page = kinesis.list_shards(StreamName=name, ShardFilter={"Type": "AT_LATEST"}, MaxResults=3)
    found = page["Shards"] + kinesis.list_shards(NextToken=page["NextToken"])["Shards"]
    assert [shard["ShardId"] for shard in found] == [id_of(number) for number in (2, 3, 4, 5)]
    page = kinesis.list_shards(StreamName=name, ShardFilter={"Type": "AT_TRIM_HORIZON"}, MaxResults=1)
    rest = kinesis.list_shards(NextToken=page["NextToken"])
    assert [shard["ShardId"] for shard in rest["Shards"]] == [id_of(1)] and "NextToken" not in rest


def test_every_record_is_read_once_through_many_reshards(kinesis, name, chance):
    sent = []

    def write():
        entries = [
            {"PartitionKey": "k", "ExplicitHashKey": str(chance.randrange(1 << 128)), "Data": b"%d" % (len(sent) + at)}
            for at in range(100)
        ]
        answer = kinesis.put_records(StreamName=name, Records=entries)
        open_shards = set(listed(kinesis, name, Type="AT_LATEST"))
        assert {int(record["ShardId"][-12:]) for record in answer["Records"]} <= open_shards
        sent.extend(entry["Data"] for entry in entries)

    for count in (4, 5, 3, 6, 3, 2):
        write()
        answer = kinesis.update_shard_count(StreamName=name, TargetShardCount=count, ScalingType="UNIFORM_SCALING")
        assert answer["TargetShardCount"] == count
    write()
    found = read_all(kinesis, name)
    assert sorted(data for records in found.values() for data in records) == sorted(sent)
    assert sorted(found) == listed(kinesis, name)


def test_a_stream_is_updating_for_as_long_as_it_was_told(start_local):
    server = start_local("slow:1", "--updating-for=2s", "--creating-for=1s")
    kinesis = client_for(server.url)

    def status(name="slow"):
        return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"]

    assert status() == "ACTIVE"
    arn = arn_of(kinesis, "slow")
    kinesis.split_shard(StreamARN=arn, ShardToSplit=id_of(0), NewStartingHashKey=MIDDLE)
    assert status() == "UPDATING"
    assert put(kinesis, "slow", 0) == 0
    refused = [
        (kinesis.split_shard, {"StreamName": "slow", "ShardToSplit": id_of(0), "NewStartingHashKey": MIDDLE}),
        (kinesis.update_shard_count,
         {"StreamARN": arn, "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING"}),
        (kinesis.update_stream_mode, {"StreamARN": arn, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}),
        (kinesis.update_max_record_size, {"StreamARN": arn, "MaxRecordSizeInKiB": 2048}),
    ]
    for call, arguments in refused:
        code, message = error_of(call, **arguments)
        assert code == "ResourceInUseException" and message.endswith("not ACTIVE, instead in state UPDATING")
    until(lambda: status() == "ACTIVE", 5, "the stream to be ACTIVE")
    assert put(kinesis, "slow", 0) == 1
    kinesis.merge_shards(StreamARN=arn, ShardToMerge=id_of(2), AdjacentShardToMerge=id_of(1))
    assert status() == "UPDATING"
    kinesis.create_stream(StreamName="new", ShardCount=1)
    assert status("new") == "CREATING"
    kinesis.get_waiter("stream_exists").wait(StreamName="new", WaiterConfig={"Delay": 1, "MaxAttempts": 4})


def test_refused_reshards_have_the_codes_of_the_service(kinesis, name):
    arn = arn_of(kinesis, name)

    def count(target):
        return code_of(kinesis.update_shard_count, StreamName=name, TargetShardCount=target,
                       ScalingType="UNIFORM_SCALING")

    def split_at(shard, key):
        return code_of(kinesis.split_shard, StreamARN=arn, ShardToSplit=shard, NewStartingHashKey=key)

    assert count(5) == "LimitExceededException"
    assert count(0) == "ValidationException"
    assert code_of(kinesis.update_shard_count, StreamName=name, TargetShardCount=2,
                   ScalingType="OTHER") == "ValidationException"
    assert code_of(kinesis.update_shard_count, StreamName="none-of-them", TargetShardCount=2,
                   ScalingType="UNIFORM_SCALING") == "ResourceNotFoundException"
    assert split_at(id_of(7), MIDDLE) == "ResourceNotFoundException"
    assert split_at(id_of(0), MIDDLE) == "InvalidArgumentException"
    assert split_at(id_of(0), "0") == "InvalidArgumentException"
    assert split_at(id_of(0), "007") == "ValidationException"
    assert split_at(id_of(0), "9" * 39) == "InvalidArgumentException"
    assert code_of(kinesis.merge_shards, StreamName=name, ShardToMerge=id_of(0),
                   AdjacentShardToMerge=id_of(0)) == "InvalidArgumentException"


def test_the_mode_and_the_largest_record_can_be_changed(kinesis, name):
    arn = arn_of(kinesis, name)

    def summary():
        return kinesis.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]

    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert summary()["StreamModeDetails"] == {"StreamMode": "ON_DEMAND"} and summary()["OpenShardCount"] == 2
    assert code_of(kinesis.update_shard_count, StreamARN=arn, TargetShardCount=4,
                   ScalingType="UNIFORM_SCALING") == "ValidationException"
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "PROVISIONED"})
    large = {"PartitionKey": "k", "Data": b"x" * ((1 << 20) + 1)}
    assert code_of(kinesis.put_records, StreamARN=arn, Records=[large]) == "ValidationException"
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=10_240)
    assert summary()["MaxRecordSizeInKiB"] == 10_240
    assert kinesis.put_records(StreamARN=arn, Records=[large])["FailedRecordCount"] == 0
    largest = {"PartitionKey": "k", "Data": b"x" * ((10 << 20) - 1)}
    assert kinesis.put_records(StreamARN=arn, Records=[largest])["FailedRecordCount"] == 0
    assert code_of(kinesis.put_records, StreamARN=arn, Records=[largest, large]) == "InvalidArgumentException"
    assert code_of(kinesis.update_max_record_size, StreamARN=arn, MaxRecordSizeInKiB=10_241) == "ValidationException"
    assert code_of(kinesis.update_max_record_size, StreamARN=arn, MaxRecordSizeInKiB=1023) == "ValidationException"
