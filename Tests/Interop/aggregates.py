"""aws_kinesis_agg, in both directions.

deaggregate FILE      takes apart the aggregates of FILE, one in hexadecimal a line, and prints a line of records each
aggregate SEED COUNT  prints COUNT random aggregates, each followed by its line of records

A line of records is key,hash key,data;… with key and data in hexadecimal.
"""

import base64
import random
import sys

from aws_kinesis_agg import aggregator, deaggregator


def deaggregate(path):
    for line in open(path, encoding="ascii"):
        kinesis = {
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": "1",
            "approximateArrivalTimestamp": 0,
            "partitionKey": "outer",
            "data": base64.b64encode(bytes.fromhex(line)),
        }
        records = [record["kinesis"] for record in deaggregator.deaggregate_records([{"kinesis": kinesis}])]
        print(
            ";".join(
                "%s,%s,%s"
                % (
                    record["partitionKey"].encode().hex(),
                    record["explicitHashKey"] or "",
                    base64.b64decode(record["data"]).hex(),
                )
                for record in records
            )
        )


def aggregate(seed, count):
    chance = random.Random(int(seed))
    for _ in range(int(count)):
        # Within one aggregate all have a hash key or none.
        explicit = chance.random() < 0.5
        keys = []
        for index in range(chance.randint(1, chance.choice([3, 20, 300]))):
            key = "%d%s" % (index, chance.choice(["", "é", "日本", "😀", "k" * 200]))
            keys.append((key, str(chance.getrandbits(chance.choice([1, 64, 128]))) if explicit else None))
        whole = aggregator.RecordAggregator(1 << 20)
        records = []
        for _ in range(chance.randint(1, 400)):
            key, hash_key = chance.choice(keys)
            data = chance.randbytes(chance.randint(0, 200))
            assert whole.add_user_record(key, data, hash_key) is None
            records.append("%s,%s,%s" % (key.encode().hex(), hash_key or "", data.hex()))
        print(whole.clear_and_get().get_contents()[2].hex())
        print(";".join(records))


if sys.argv[1] == "deaggregate":
    deaggregate(sys.argv[2])
else:
    aggregate(sys.argv[2], sys.argv[3])
