"""Lives of an agent: it is started, disturbed, killed or stopped and started again, while programs write numbered lines; a
judge knows which of them may come twice.
"""

import collections
import os
import random
import subprocess
import threading
import time

import faults
import judge
import oracle
import senders
from conftest import BINARY, environment
from reshards import Reshards

# The longest wait of the agent for an answer, in seconds.
TIMEOUT = 1.5
# Seconds between two changes of the stream's shards.
RESHARD = 4
# A checkpoint a second, and what a busy machine takes to come to it; how long its disk takes is measured.
CHECKPOINT_AGE = 3.0


class Soak:
    # What a record's data are lines of.
    lines_of = staticmethod(oracle.plain)

    def __init__(self, server, make_agent, folder, chance):
        self.chance, self._server = chance, server
        self.counts = collections.Counter()
        self.agent = make_agent([], "", "logs", agent={"shutdown_timeout": "4s", "log_level": "debug"}, timeout="1500ms", connect_timeout="500ms")
        self.is_alive = False
        self.senders = self._make_senders(folder)
        self.judge = judge.Judge(server.url, "logs", [sender.source for sender in self.senders], self.lines_of)
        self.kinesis = faults.FaultyKinesis(server.url, self._dice(), self.judge.allow, timeout=TIMEOUT)
        self.agent.output["endpoint"] = self.kinesis.url
        self._configure()
        # The agent's own is written again and again.
        self.agent.write_config()
        self._config = self.agent.folder / "files.toml"
        self._config.write_bytes(self.agent.config.read_bytes())
        self.stale = []
        self.most_behind = self.most_spooled = 0
        # Lines that the last dead agent left on its disk, how often each, and how many copies in all.
        self.owed = collections.Counter()
        self.spooled = 0
        self._stopping = threading.Event()
        self._faults = []
        self._threads = [threading.Thread(target=self._run, args=(sender.run,)) for sender in self.senders]
        self._threads += [threading.Thread(target=self._run, args=(body,)) for body in (self._keep_reading, self._keep_syncing)]
        # When the disk was asked to write something down, and for how many seconds.
        self._syncs = collections.deque(maxlen=200)
        self.reshards = Reshards(server.url, "logs", self._dice(), pause=RESHARD)

    def _dice(self):
        return random.Random(self.chance.getrandbits(64))

    def _make_senders(self, folder):
        kinds = [
            (senders.Renaming, {"matches_rotated": False}), (senders.Renaming, {"matches_rotated": True}),
            (senders.CopyTruncating, {"matches_rotated": False}), (senders.CopyTruncating, {"matches_rotated": True}),
            (senders.Packing, {}), (senders.Dated, {}),
        ]
        common = {"is_delivered": self.is_delivered, "state": self._state, "is_calm": self._is_calm}
        return [
            kind(
                number, folder / f"{number}-{kind.__name__.lower()}", self._dice(), **options, **common,
                promised=self._promised,
            )
            for number, (kind, options) in enumerate(kinds, 1)
        ]

    def _promised(self, *stretch):
        self.judge.promised(*stretch)

    def _configure(self):
        """Several patterns in an input, several inputs."""
        self.agent.inputs = {
            f"in-{number}": {
                "type": "file", "start_at": "beginning",
                "paths": [pattern for sender in pair for pattern in sender.patterns],
                "exclude": [pattern for sender in pair for pattern in sender.exclude],
            }
            for number, pair in enumerate(zip(self.senders[::2], self.senders[1::2], strict=True))
        }

    def _penstock(self, *words):
        return subprocess.run(
            [str(BINARY), *words, "--config", str(self._config)], env=environment(), timeout=60, stdout=subprocess.PIPE
        )

    def _spooled(self):
        """How often each line is owed by the spool, which only a dead agent leaves as it is."""
        # They are many: what is damaged in them is seen when they arrive.
        heads = collections.Counter(line[:16] for line in self._exported())
        return collections.Counter({(int(head[1:5]), int(head[6:])): times for head, times in heads.items()})

    def _exported(self):
        exported = self._penstock("spool", "export")
        assert exported.returncode == 0
        return exported.stdout.splitlines()

    def _state(self):
        return senders.State(self.agent.entries.values())

    def _is_calm(self):
        return self.judge.backlog < 2 * senders.BURST

    def is_delivered(self, path):
        code = self._penstock("files", "--quiet", path).returncode
        # 69: no agent has written a state file yet.
        assert code in (0, 1, 69), code
        self.counts[f"files said {'yes' if code == 0 else 'no'} {'beside' if self.is_alive else 'without'} an agent"] += 1
        return code == 0

    # Threads

    def _run(self, body):
        try:
            body(self._stopping)
        except BaseException as fault:
            self._faults.append(fault)

    def _keep_reading(self, stopping):
        while not stopping.wait(0.2):
            self.judge.read()
            self.most_behind = max(self.most_behind, self.judge.backlog)

    def _keep_syncing(self, stopping):
        with open(self.agent.folder / "sync", "wb") as file:
            while not stopping.wait(0.25):
                began = time.time()
                file.write(b"x")
                file.flush()
                os.fsync(file.fileno())
                self._syncs.append((began, time.time() - began))

    def _longest_sync(self, since):
        return max((took for began, took in list(self._syncs) if began + took >= since), default=0)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.reshards.start()
        return self

    def stop(self):
        self._stopping.set()
        self.reshards.stop()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        self.check()

    def __exit__(self, fault, *_):
        if fault is not None:
            self.tell()
        try:
            self.stop()
        finally:
            self.kinesis.stop()

    def check(self):
        code = self._server.process.poll()
        assert code is None, f"the embedded Kinesis ended with {code}"
        if self._faults:
            raise self._faults[0]

    # A life of the agent

    def live(self, seconds, ends_gently):
        is_disturbed = self._configure_life()
        if self.spooled > 2 * senders.BURST:
            # Very short lives only add to it.
            seconds, is_disturbed = max(seconds, 3), False
            self.kinesis.rise()
            self.kinesis.likelihood = self.agent.output["rate_limit"] = 0
            self.counts["long lives for the spool"] += 1
        self.kinesis.agent_starts()
        run = self.agent.start()
        self.is_alive = True
        if is_disturbed and self.chance.random() < 0.3:
            until_fall = self.chance.uniform(0, seconds)
            time.sleep(until_fall)
            # Often for longer than this life.
            self.kinesis.fall(self.chance.choice([0.1, 1, 3, 6]) * self.chance.uniform(0.5, 1))
            time.sleep(seconds - until_fall)
        else:
            time.sleep(seconds)
        assert run.process.poll() is None, f"the agent ended by itself: {run.log}"
        death = self._end(run, ends_gently)
        self.is_alive = False
        self.kinesis.settle()
        self.judge.read()
        self.judge.require_no_surprise(f"run {len(self.agent.runs) - 1}")
        self._bury(run, death, ends_gently, is_disturbed)
        self.check()

    def _end(self, run, gently):
        """Stops an agent, or kills it; returns when it had to end."""
        death = time.time()
        if gently:
            assert run.terminate(timeout=15) == 0, run.log
        else:
            self.kinesis.agent_is_killed()
            run.kill()
        return death

    def tell(self):
        """Prints what led to a fault: the last lives' logs."""
        for run in self.agent.runs[-3:]:
            print(f"run {self.agent.runs.index(run)}:\n{run.log[-20000:]}")
        print(f"faults: {dict(self.kinesis.counts)}; likelihood {self.kinesis.likelihood}; {self.agent.output}")

    def _configure_life(self):
        """True if calls may fail."""
        chance, output = self.chance, self.agent.output
        output["rate_limit"] = chance.choice([0, 0, 100])
        output["linger"] = chance.choice(["1ms", "20ms", "100ms"])
        output["partition_key"] = chance.choice(["spread", "spread", "random", "source"])
        output["wire"] = chance.choice(["auto", "auto", "cbor", "json"])
        output["spool"] = {
            "when": chance.choice(["failure"] * 4 + ["always"]), "sync": chance.choice(["always", "50ms", "1s"])
        }
        is_disturbed = not self.kinesis.is_up or chance.random() < 0.6
        self.kinesis.likelihood = chance.choice([0.02, 0.1, 0.4]) if is_disturbed else 0
        return is_disturbed

    def _bury(self, run, death, ends_gently, is_disturbed):
        """Sees what a dead agent has left: that is what may come again."""
        owed_before, state, spooled = self.owed, self._state(), self._spooled()
        self.owed = spooled
        stretches = [stretch for sender in self.senders for stretch in sender.left_open(state)]
        arrived = self.judge.arrived_of(stretches)
        # What is spooled may be in a file as well; what has neither arrived nor is spooled comes for the first time.
        in_files = set(arrived).union(
            line for line in spooled for source, first, end in stretches if line[0] == source and first <= line[1] < end
        )
        left = spooled + collections.Counter(in_files)
        self.spooled = spooled.total()
        # A line that the spool owed came from there, before its file was read as far, if it was read at all.
        of_this_life = [line for line, time in arrived.items() if time >= run.started and line not in owed_before]
        if ends_gently and "everything that was read is delivered" in run.log:
            self.counts["stops with everything delivered"] += 1
            assert not of_this_life, f"delivered, and not in the state file: {judge.ranges(of_this_life)}"
            assert not spooled, f"delivered, and in the spool: {judge.ranges(spooled)}"
        else:
            self.counts["stops with something left" if ends_gently else "kills"] += 1
            self.counts["ends between two checkpoints"] += bool(of_this_life)
            self.counts["ends with a spool"] += bool(spooled)
            self.most_spooled = max(self.most_spooled, self.spooled)
        self.judge.will_come(left)
        if not is_disturbed:
            # A refused record holds back every line behind it; without faults nothing does.
            oldest = death - CHECKPOINT_AGE - self._longest_sync(run.started)
            late = [line for line in of_this_life if arrived[line] < oldest]
            if late:
                self.stale += late
                print(f"covered too late, {death - min(arrived[line] for line in late):.2f} s: {judge.ranges(late)}\n{run.log[-20000:]}")

    def finish(self):
        """No more lines, no more faults: the rest is delivered."""
        self.kinesis.rise()
        self.kinesis.likelihood = 0
        self.kinesis.agent_starts()
        self.agent.output["rate_limit"] = 0
        last = self.agent.once(timeout=120)
        assert last.process.returncode == 0, last.log
        return self.judge.verdict()


def life(chance):
    """Seconds: most are short, some see several checkpoints, a few all that takes its time."""
    kind = chance.random()
    if kind < 0.8:
        return chance.uniform(0.02, 1.2)
    return chance.uniform(1.2, 3.5) if kind < 0.95 else chance.uniform(3.5, 6) if kind < 0.99 else chance.uniform(7, 12)
