"""Changes a stream's shards while it is written to."""

import threading

import oracle


class Reshards(threading.Thread):
    """Reshards a stream, one change after another.

    Changes as ("split",), ("merge",), ("scale", 6); none: splits and merges for ever, around the first number of shards.
    """

    def __init__(self, url, stream, chance, pause, changes=None):
        super().__init__(daemon=True)
        self.kinesis = oracle.client(url)
        self.stream, self.changes, self.chance, self.pause = stream, changes, chance, pause
        self.done, self.fault = [], None
        self.stopping = threading.Event()

    def open_shards(self):
        # Without the closed ones: they would be all that the first page holds, after an hour.
        shards = self.kinesis.list_shards(StreamName=self.stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
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

    def endless(self):
        first = len(self.open_shards())
        while True:
            yield ("split",) if len(self.open_shards()) <= self.chance.randint(first // 2, first + 1) else ("merge",)

    def run(self):
        try:
            for name, *arguments in self.changes or self.endless():
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
