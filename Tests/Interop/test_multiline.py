"""Records of several lines through the whole agent: stack traces stay whole, through kills, rotation and packing."""

import os
import re
import subprocess

import oracle
import pytest
from conftest import until


def records_of(server):
    kinesis = oracle.client(server.url)
    return [
        bytes(record.data)
        for shard in oracle.shards_of(kinesis, "logs")
        for record in oracle.ShardReader(kinesis, "logs", shard).user_records()
    ]


def trace(number, chance):
    lines = [b"2026-11-21T08:00:%02d ERROR request %d failed" % (number % 60, number)]
    lines += [b"\tat com.example.Handler%d.run(Handler.java:%d)" % (number, line) for line in range(chance.randrange(30))]
    return b"\n".join(lines)


@pytest.fixture
def server(start_local):
    return start_local("logs:4", "--memory=1GiB")


def test_stack_traces_stay_whole_through_kills_rotation_and_packing(server, make_agent, logs, chance, figure):
    path = logs / "app.log"
    agent = make_agent(
        path, server.url, "logs", linger="20ms", inputs={"multiline_start": r"^\d{4}-\d\d-", "multiline_timeout": "1s"}
    )
    written, kills = [], 0
    path.touch()
    for round_ in range(12):
        run = agent.start()
        for _ in range(20):
            texts = [trace(len(written) + index, chance) for index in range(chance.randrange(1, 200))]
            written += texts
            with open(path, "ab") as file:
                # Torn anywhere, but for less than the time-out.
                text = b"".join(text + b"\n" for text in texts)
                cut = chance.randrange(len(text))
                file.write(text[:cut])
                file.flush()
                file.write(text[cut:])
        # Renamed away before the state file names it, or packed before it knows its head, nobody could find it.
        inode = str(path.stat().st_ino)
        until(
            lambda: any(entry["inode"] == inode and entry["head_size"] for entry in agent.entries.values()), 10,
            "the state file",
        )
        if round_ % 3 == 0:
            run.wait_for("penstock runs")
            assert run.terminate() == 0
        else:
            run.kill()
            kills += 1
        if round_ % 2:
            old = logs / f"app.log.{round_}"
            os.rename(path, old)
            path.touch()
            if round_ % 4 == 1:
                subprocess.run(["gzip", old], check=True, timeout=60)
    last = agent.once()
    assert last.process.returncode == 0, last.log
    arrived = records_of(server)
    assert set(arrived) == set(written), "each whole, and nothing else"
    figure(f"{len(written)} records, {kills} kills: {len(arrived) - len(written)} came twice")


def test_a_line_on_which_the_expression_takes_too_long_holds_nobody_up(server, make_agent, logs):
    path = logs / "app.log"
    path.write_bytes(b"aaaa\n" + b"a" * 60 + b"b\naaaaa\n" * 1)
    agent = make_agent(path, server.url, "logs", inputs={"multiline_start": "^(a+)+$"})
    run = agent.once(timeout=30)
    assert run.process.returncode == 0, run.log
    assert "multiline_start takes too long" in run.log
    assert sorted(records_of(server)) == [b"aaaa\n" + b"a" * 60 + b"b", b"aaaaa"]


def test_a_bad_expression_is_a_fault_with_its_place(penstock, server, make_agent, logs):
    agent = make_agent(logs / "app.log", server.url, "logs", inputs={"multiline_start": "^[0-9"})
    agent.write_config()
    result = penstock("check", "--config", agent.config)
    assert result.returncode == 78
    assert re.search(rb":\d+:\d+: inputs.app.multiline_start: is no regular expression.*behind 5 bytes", result.stderr), (
        result.stderr
    )
