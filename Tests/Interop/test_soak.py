"""The oracle: programs write numbered lines, files are rotated, calls fail, the agent is killed again and again; then all is
counted.

Nothing may be lost, ever. What may come twice is known line by line: after a kill, what is in the stream and yet beyond the
checkpoint that the dead agent left, or owed by the spool that it left (in flight, or acknowledged since either was written
down); and the lines of a call that was stored and whose answer was lost. More than that is a fault. The stream is resharded all the time;
what is stored across a new border counts for nothing, as the KCL reads. And what `penstock
files` calls all delivered is deleted.

PENSTOCK_SOAK is how many seconds it takes (default: 300, with 200 kills).
"""

import os
import time

import faults
import judge
import senders
from soak import CHECKPOINT_AGE, Soak, life

SECONDS = float(os.environ.get("PENSTOCK_SOAK", 300))
KILLS = max(5, round(SECONDS * 200 / 300))


def test_kills_rotations_and_faults_lose_nothing_and_repeat_only_what_they_explain(
    start_local, make_agent, logs, chance, figure
):
    server = start_local("logs:4", "--memory=1GiB")
    with Soak(server, make_agent, logs, chance) as soak:
        began = time.monotonic()
        while soak.counts["kills"] < KILLS:
            # On a busy machine everything around a life takes longer, so that lives have to be shorter.
            lives_left = (KILLS - soak.counts["kills"]) * 1.1
            pace = max(0, SECONDS - (time.monotonic() - began)) / lives_left
            seconds = life(chance) * min(1.5, max(0.3, pace / 1.5))
            # Before it listens to signals, one kills it.
            soak.live(seconds, ends_gently=seconds > 0.5 and chance.random() < 0.15)
            if chance.random() < 0.3:  # nobody looks
                time.sleep(chance.uniform(0, 1) * min(1, pace))
        soak.stop()
        took = time.monotonic() - began
        verdict = soak.finish()
        counts, faulty = soak.counts, soak.kinesis
        figure(f"{counts['kills']} kills in {took:.0f} s; {verdict}")
        figure(f"bound on duplicates {soak.judge.bound}, of it by faults {faulty.repeatable}; most behind {soak.most_behind}, most spooled {soak.most_spooled}")
        figure(f"{len(soak.reshards.done)} reshards, {soak.judge.dropped} aggregates were placed again for them")
        figure(f"agent: {dict(counts)}; covered too late: {len(soak.stale)}")
        for sender in soak.senders:
            figure(f"{sender.name}: {dict(sender.counts)}")
        figure(f"faults: {dict(faulty.counts)}")
        verdict.require()
        assert verdict.duplicated <= soak.judge.bound
        assert not soak.stale, f"older than {CHECKPOINT_AGE} s and not in the checkpoint: {judge.ranges(soak.stale)}"
        remaining = [path for sender in soak.senders for path in sender.remaining()]
        assert [path for path in remaining if not soak.is_delivered(path)] == []
        if SECONDS >= 120:
            require_that_it_tested_something(soak)


def require_that_it_tested_something(soak):
    counts, senders_counts = soak.counts, [sender.counts for sender in soak.senders]
    least = SECONDS / 30
    for count in senders_counts:
        assert count["rotations"] > 2 * least and count["deletions"] > least, senders_counts
    assert sum(count["bursts"] for count in senders_counts) > least
    assert sum(count["quiet times"] for count in senders_counts) > least
    assert sum(count["packed before it was finished"] for count in senders_counts) > least / 2
    assert sum(count["written behind a rename"] for count in senders_counts) > least
    assert {fault.__name__ for fault in faults.FAULTS} | {"down"} <= soak.kinesis.counts.keys()
    assert soak.kinesis.repeatable > 0
    assert soak.most_behind > senders.BURST
    assert counts["ends between two checkpoints"] > counts["kills"] / 4
    assert counts["ends with a spool"] > least and soak.most_spooled > 1000
    assert counts["files said yes without an agent"] > 0 and counts["files said yes beside an agent"] > 0
    assert counts["stops with everything delivered"] > 0
    assert len(soak.reshards.done) > least
