"""Bad input costs what is bad: a clear line in the log, and nothing else is lost."""

import json
import os
import random
import shutil
import subprocess
import time

import conftest
import oracle
import pytest
from conftest import BINARY, SEED, environment, until


@pytest.fixture
def good(logs):
    """A healthy file beside the bad one: whatever happens, it is delivered."""
    source = oracle.Source(1)
    source.write(logs / "good.log", 2_000)
    return source


def data_of(server, stream):
    """The data of all user records."""
    return [record.data for record in oracle.user_records(server.url, stream)]


def split(records):
    """The oracle's lines, and everything else."""
    lines = [oracle.parse(data) for data in records]
    return sorted(line for line in lines if line), [data for data, line in zip(records, lines) if not line]


def numbers(source, count=None):
    return [(source.number, number) for number in range(source.written if count is None else count)]


def errors(run):
    return [line for line in run.lines if " error " in line or " warning " in line]


def records_until(server, stream, count, timeout=15):
    """Reads until `count` records have come, and a moment longer, in case there are more."""
    found = []

    def enough():
        found[:] = data_of(server, stream)
        return len(found) >= count

    until(enough, timeout, lambda: f"{count} records, there are {len(found)}", every=0.1)
    time.sleep(0.3)
    return data_of(server, stream)


# Files


def test_a_pattern_without_a_file_is_warned_of_and_works_once_one_appears(local_kinesis, stream, make_agent, logs):
    agent = make_agent(logs / "later" / "*.log", local_kinesis.url, stream, inputs={"start_at": "end"})
    run = agent.start()
    warning = run.wait_for("no file matches the pattern yet")
    assert " warning " in warning and str(logs / "later" / "*.log") in warning
    (logs / "later").mkdir()
    source = oracle.Source(1)
    # What came after the start is read from its beginning, whatever start_at says.
    source.write(logs / "later" / "app.log", 100)
    assert split(records_until(local_kinesis, stream, 100)) == (numbers(source), [])
    assert run.terminate() == 0


def test_run_once_with_no_file_at_all_ends_well_with_a_warning(local_kinesis, stream, make_agent, logs):
    run = make_agent(logs / "*.log", local_kinesis.url, stream).once()
    assert run.process.returncode == 0
    assert "no file matches the pattern yet" in run.log


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run the agent as another user, for whom a file is closed")
def test_an_unreadable_file_is_an_error_and_is_read_once_it_can_be(
    local_kinesis, stream, make_agent, logs, tmp_path, good, monkeypatch
):
    nobody = 65534
    # The checkout may lie where only its owner may go, like /root.
    binary = shutil.copy(BINARY, tmp_path / "penstock")
    monkeypatch.setattr(conftest, "BINARY", binary)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.owner() == "root" and not folder.stat().st_mode & 0o001 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    source = oracle.Source(2)
    source.write(logs / "secret.log", 100)
    (logs / "secret.log").chmod(0o600)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    agent.write_config()
    agent.state.mkdir()
    for path in (agent.folder, agent.state):
        os.chown(path, nobody, nobody)
    readable = subprocess.run([binary, "--version"], user=nobody, group=nobody, capture_output=True)
    assert readable.returncode == 0, "another user must be able to run the binary for this test"
    run = agent.once(user=nobody)
    assert run.process.returncode == 0, run.log
    [line] = errors(run)
    assert "file cannot be read" in line and str(logs / "secret.log") in line and "ermission denied" in line
    assert split(data_of(local_kinesis, stream)) == (numbers(good), [])
    # A running agent finds out by itself.
    run = agent.start(user=nobody)
    run.wait_for("file cannot be read")
    (logs / "secret.log").chmod(0o644)
    found = records_until(local_kinesis, stream, 2_100)
    assert split(found) == (sorted(numbers(good) + numbers(source)), [])
    assert run.terminate() == 0


def test_a_directory_in_place_of_a_file_is_an_error_that_says_what_to_do(
    local_kinesis, stream, make_agent, logs, good
):
    (logs / "folder.log").mkdir()
    run = make_agent(logs / "*.log", local_kinesis.url, stream).once()
    assert run.process.returncode == 0
    [line] = errors(run)
    assert str(logs / "folder.log") in line and "is a folder: match the files in it" in line
    assert split(data_of(local_kinesis, stream)) == (numbers(good), [])


def test_a_fifo_in_place_of_a_file_is_an_error_and_nobody_waits_for_it(local_kinesis, stream, make_agent, logs, good):
    os.mkfifo(logs / "pipe.log")
    run = make_agent(logs / "*.log", local_kinesis.url, stream).once(timeout=20)
    assert run.process.returncode == 0
    [line] = errors(run)
    assert "is not a regular file" in line
    assert split(data_of(local_kinesis, stream)) == (numbers(good), [])


@pytest.mark.parametrize("key", ["source", "spread"])
def test_a_line_of_100_megabytes_is_split_and_its_pieces_make_the_line_again(
    start_local, make_agent, logs, good, figure, key
):
    server = start_local("logs:4", "--memory=512MiB")
    # Numbered, so that each piece is another; with characters of several bytes, of which none may be torn.
    long = "".join(f"{number:09} æøå 日本語 😀 " for number in range(100_000_000 // 31 + 1)).encode()
    assert len(long) >= 100_000_000
    before, after = oracle.Source(2), oracle.Source(3)
    before.write(logs / "long.log", 10)
    with open(logs / "long.log", "ab") as file:
        file.write(long + b"\n")
    after.write(logs / "long.log", 10)
    # Only with one call in flight is a file's order kept.
    agent = make_agent(logs / "*.log", server.url, "logs", partition_key=key, max_in_flight=1)
    run = agent.once(timeout=60)
    assert run.process.returncode == 0, run.log
    lines, pieces = split([record.data for record in oracle.user_records(server.url, "logs")])
    assert lines == sorted(numbers(good) + numbers(before) + numbers(after))
    assert all(len(piece) <= (1 << 20) - 1 for piece in pieces)
    assert all(piece.decode() for piece in pieces), "no character is torn"
    if key == "spread":
        # They lie in several shards: each finds its place by its beginning, which holds a number.
        by_beginning = {piece[:80]: piece for piece in pieces}
        assert len(by_beginning) == len(pieces)
        count, pieces, at = len(pieces), [], 0
        while at < len(long):
            pieces.append(by_beginning[long[at : at + 80]])
            at += len(pieces[-1])
        assert len(pieces) == count
    assert b"".join(pieces) == long
    figure(f"{len(pieces)} pieces; agent {run.seconds:.1f} s, peak {run.peak / (1 << 20):.0f} MiB")
    assert run.peak < (256 + 32) << 20, "memory_limit and 32 MiB are the most, whatever comes"


def test_a_long_line_is_truncated_where_the_input_says_so(local_kinesis, stream, make_agent, logs, good):
    (logs / "long.log").write_bytes(b"x" * 5_000_000 + b"\nshort\n")
    inputs = {"on_oversize": "truncate", "max_record": "64KiB"}
    run = make_agent(logs / "*.log", local_kinesis.url, stream, inputs=inputs).once()
    assert run.process.returncode == 0, run.log
    lines, others = split(data_of(local_kinesis, stream))
    assert lines == numbers(good)
    assert sorted(others) == [b"short", b"x" * 65_536]


def test_bytes_are_delivered_as_they_are(local_kinesis, stream, make_agent, logs, good):
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    lines = [
        b"nul \0 in the middle", b"\0", b"\0\0\0 at the start", b"invalid \xff\xfe\x80 UTF-8", b"\xc3", b"\xed\xa0\x80",
        b"a lone \r in the middle", b"escape \x1b[31m", b"\xf3\x89\x9a\xc2 as an aggregate begins",
        "日本語 😀".encode(), b" leading and trailing ", b"\t",
    ]
    lines += [bytes(chance.choices([b for b in range(256) if b not in (10, 13)], k=chance.randint(1, 300)))
              for _ in range(2_000)]
    (logs / "odd.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run = make_agent(logs / "*.log", local_kinesis.url, stream).once()
    assert run.process.returncode == 0 and not errors(run), run.log
    found, others = split(data_of(local_kinesis, stream))
    assert found == numbers(good)
    assert sorted(others) == sorted(lines)


def test_the_carriage_return_of_a_line_end_is_no_part_of_the_line(local_kinesis, stream, make_agent, logs, good):
    (logs / "dos.log").write_bytes(b"one\r\ntwo\r\nthree\nfour \r x\r\nfive\r\r\nsix\n")
    assert make_agent(logs / "*.log", local_kinesis.url, stream).once().process.returncode == 0
    found, others = split(data_of(local_kinesis, stream))
    assert found == numbers(good)
    assert sorted(others) == sorted([b"one", b"two", b"three", b"four \r x", b"five\r", b"six"])


def test_an_empty_file_is_no_fault_and_its_first_line_is_read(local_kinesis, stream, make_agent, logs, good):
    (logs / "empty.log").touch()
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    run = agent.start()
    assert len(records_until(local_kinesis, stream, 2_000)) == 2_000
    assert not errors(run), run.log
    source = oracle.Source(2)
    source.write(logs / "empty.log", 1)
    assert len(records_until(local_kinesis, stream, 2_001)) == 2_001
    assert run.terminate() == 0


def test_the_unfinished_last_line_waits_for_its_end_and_is_delivered_by_run_once(
    local_kinesis, stream, make_agent, logs
):
    (logs / "app.log").write_bytes(b"whole\nhal")
    agent = make_agent(logs / "app.log", local_kinesis.url, stream)
    run = agent.start()
    assert records_until(local_kinesis, stream, 1) == [b"whole"]
    with open(logs / "app.log", "ab") as file:
        file.write(b"f\nrest")
    assert sorted(records_until(local_kinesis, stream, 2)) == [b"half", b"whole"]
    assert run.terminate() == 0
    assert agent.once().process.returncode == 0
    assert sorted(data_of(local_kinesis, stream)) == [b"half", b"rest", b"whole"]


def test_a_file_that_shrinks_is_warned_of_and_read_from_its_start(local_kinesis, stream, make_agent, logs, good):
    source = oracle.Source(2)
    source.write(logs / "app.log", 1_000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    run = agent.start()
    records_until(local_kinesis, stream, 3_000)
    # copytruncate: the writer goes on at the start of the same file.
    os.truncate(logs / "app.log", 0)
    source.write(logs / "app.log", 10)
    found = records_until(local_kinesis, stream, 3_010)
    assert split(found) == (sorted(numbers(good) + numbers(source)), [])
    warning = run.wait_for("file was truncated, reading it from its start")
    assert " warning " in warning and str(logs / "app.log") in warning
    assert run.terminate() == 0


def test_a_file_that_shrank_while_no_agent_ran_is_warned_of_and_read_from_its_start(
    local_kinesis, stream, make_agent, logs, good
):
    source = oracle.Source(2)
    source.write(logs / "app.log", 1_000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    assert agent.once().process.returncode == 0
    # The same beginning, and less of it: what remains cannot be told from new lines.
    kept = (logs / "app.log").read_bytes().splitlines(keepends=True)[:600]
    os.truncate(logs / "app.log", sum(map(len, kept)))
    run = agent.once()
    [warning] = errors(run)
    assert "file was truncated while no agent ran, reading it from its start" in warning
    found, others = split(data_of(local_kinesis, stream))
    assert found == sorted(numbers(good) + numbers(source) + numbers(source, 600)) and not others


def test_a_file_that_was_written_anew_while_no_agent_ran_is_read_from_its_start(
    local_kinesis, stream, make_agent, logs, good
):
    source = oracle.Source(2)
    source.write(logs / "app.log", 1_000)
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    assert agent.once().process.returncode == 0
    # The same file, longer than it was, with other content.
    os.truncate(logs / "app.log", 0)
    source.write(logs / "app.log", 2_000)
    run = agent.once()
    assert run.process.returncode == 0
    assert "file has other content than before" in run.log
    assert split(data_of(local_kinesis, stream)) == (sorted(numbers(good) + numbers(source)), [])


def test_a_deleted_file_is_read_to_its_end(local_kinesis, stream, make_agent, logs, good):
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    run = agent.start()
    records_until(local_kinesis, stream, 2_000)
    source = oracle.Source(2)
    source.write(logs / "app.log", 1_000)
    until(lambda: (logs / "app.log").stat().st_ino in run.files, 5, "the agent to open the file")
    source.write(logs / "app.log", 1_000)
    (logs / "app.log").unlink()
    found = records_until(local_kinesis, stream, 4_000)
    assert split(found) == (sorted(numbers(good) + numbers(source)), [])
    # It must be quiet for a while: its writer may still hold it.
    run.wait_for("deleted file is finished", timeout=20)
    assert run.terminate() == 0


# Kinesis


def test_run_once_into_a_stream_that_does_not_exist_ends_with_69(local_kinesis, make_agent, logs, good):
    run = make_agent(logs / "*.log", local_kinesis.url, "nowhere").once(timeout=10)
    assert run.process.returncode == 69, run.log
    assert "the stream does not exist: create it, or correct stream and region" in run.log
    assert "stream=nowhere" in run.log


def test_a_running_agent_delivers_once_the_stream_is_created(start_local, make_agent, logs, good):
    server = start_local()
    agent = make_agent(logs / "*.log", server.url, "later")
    run = agent.start()
    run.wait_for("the stream does not exist")
    oracle.client(server.url).create_stream(StreamName="later", ShardCount=2)
    run.wait_for("Kinesis answers again", timeout=30)
    until(lambda: all(position > 0 for position in agent.checkpoints.values()) and agent.checkpoints, 10, "delivery")
    assert run.terminate() == 0, run.log
    oracle.verify(server.url, "later", [good]).require_exact()


@pytest.mark.parametrize(
    "wrong", [{"AWS_ACCESS_KEY_ID": "other"}, {"AWS_SECRET_ACCESS_KEY": "not-s3cret"}], ids=["id", "secret"]
)
def test_wrong_credentials_end_run_once_with_77(start_local, make_agent, logs, good, wrong):
    server = start_local("logs:4", "--access-key=test:test")
    agent = make_agent(logs / "*.log", server.url, "logs")
    run = agent.once(timeout=15, env=environment(**wrong))
    assert run.process.returncode == 77, run.log
    assert "the AWS credentials are not accepted: correct or renew them" in run.log
    assert all(secret not in run.log for secret in ("not-s3cret", "AWS4-HMAC")), "no secret in a log"
    # With the right ones everything is still there.
    assert agent.once().process.returncode == 0
    oracle.verify(server.url, "logs", [good]).require_exact()


def test_missing_credentials_end_run_once_with_77_and_say_where_to_put_them(
    local_kinesis, stream, make_agent, logs, good
):
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    bare = environment(AWS_EC2_METADATA_DISABLED="true")
    del bare["AWS_ACCESS_KEY_ID"], bare["AWS_SECRET_ACCESS_KEY"]
    run = agent.once(timeout=15, env=bare)
    assert run.process.returncode == 77, run.log
    assert "AWS_ACCESS_KEY_ID is not set" in run.log and "[default] is not in" in run.log


def test_a_profile_of_the_shared_files_is_understood(start_local, make_agent, logs, good, tmp_path):
    server = start_local("logs:4", "--access-key=AKIDFILE:from/the+file")
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = no\naws_secret_access_key = no\n"
        "[work]\naws_access_key_id=AKIDFILE\naws_secret_access_key = from/the+file\n"
    )
    agent = make_agent(logs / "*.log", server.url, "logs", profile="work")
    run = agent.once(env=environment(AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials")))
    assert run.process.returncode == 0, run.log
    kinesis = oracle.client(server.url, aws_access_key_id="AKIDFILE", aws_secret_access_key="from/the+file")
    count = sum(
        sum(1 for _ in oracle.ShardReader(kinesis, "logs", shard).user_records())
        for shard in oracle.shards_of(kinesis, "logs")
    )
    assert count == good.written


# The state


def test_a_second_agent_on_one_state_dir_is_refused_and_the_first_goes_on(
    local_kinesis, stream, make_agent, logs, good
):
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    first = agent.start()
    first.wait_for("tailing file")
    second = agent.start()
    assert second.wait(10) == 73, second.log
    [line] = second.lines
    assert f"process {first.pid}" in line and str(agent.state) in line and "agent.state_dir" in line
    good.write(logs / "good.log", 500)
    found = records_until(local_kinesis, stream, 2_500)
    assert split(found) == (numbers(good), [])
    assert first.terminate() == 0
    assert agent.once().process.returncode == 0, "the lock goes with its holder"
    oracle.verify(local_kinesis.url, stream, [good]).require_exact()


def test_a_state_dir_that_cannot_be_used_ends_with_73(local_kinesis, stream, make_agent, logs, tmp_path, good):
    (tmp_path / "file").write_text("not a folder")
    agent = make_agent(logs / "*.log", local_kinesis.url, stream, agent={"state_dir": tmp_path / "file" / "state"})
    run = agent.once(timeout=10)
    assert run.process.returncode == 73, run.log
    assert "the state directory cannot be used" in run.log and str(tmp_path / "file") in run.log


def flip(text):
    return text.replace(b'"position":', b'"position":9', 1)


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[: len(text) // 2], flip, lambda text: b"", lambda text: b"\0" * len(text), lambda text: b"{}\n"],
    ids=["torn", "changed", "empty", "zeroed", "foreign"],
)
def test_a_damaged_state_file_is_set_aside_and_reported_and_nothing_is_lost(
    local_kinesis, stream, make_agent, logs, good, damage
):
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    assert agent.once().process.returncode == 0
    state = agent.state / "checkpoints"
    broken = damage(state.read_bytes())
    state.write_bytes(broken)
    good.write(logs / "good.log", 100)
    run = agent.once()
    assert run.process.returncode == 0, run.log
    [line] = errors(run)
    assert " error " in line and "the state file was damaged and is set aside" in line
    [kept] = agent.state.glob("checkpoints.damaged-*")
    assert str(kept) in line and kept.read_bytes() == broken
    oracle.verify(local_kinesis.url, stream, [good]).require_nothing_lost()
    assert list(agent.checkpoints.values()) == [(logs / "good.log").stat().st_size]


def test_a_state_file_of_a_newer_version_is_refused_and_left_untouched(local_kinesis, stream, make_agent, logs, good):
    agent = make_agent(logs / "*.log", local_kinesis.url, stream)
    agent.state.mkdir(parents=True)
    newer = b"penstock-checkpoints 99 " + b"0" * 64 + b"\n" + json.dumps({"from": "the future"}).encode() + b"\n"
    (agent.state / "checkpoints").write_bytes(newer)
    run = agent.once(timeout=10)
    assert run.process.returncode == 73, run.log
    assert "was written by a newer penstock (version 99)" in run.log
    assert "install that one again, or move the file away" in run.log
    assert (agent.state / "checkpoints").read_bytes() == newer
    assert data_of(local_kinesis, stream) == []
