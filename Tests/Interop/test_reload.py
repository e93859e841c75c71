"""SIGHUP: another configuration is taken on, and no line is lost or read again; a faulty one is refused."""

import contextlib
import random
import signal
import socket
import threading
import time

import faults
import oracle
import pytest
from conftest import until
from datagrams import listen, stored


def reload(agent, run, **output):
    """Writes the configuration, changed, and says so; returns what the log has to say about it."""
    agent.output |= output
    agent.write_config()
    before = len(run.lines)
    run.process.send_signal(signal.SIGHUP)

    def said():
        return next((line for line in run.lines[before:] if " configuration " in line), None)

    return until(said, 10, lambda: f"the reload:\n{run.log}")


def delivered(agent, *paths):
    positions = agent.checkpoints
    return all(positions.get(path.stat().st_ino, 0) == path.stat().st_size for path in paths)


def test_reloads_in_full_flow_lose_nothing_and_repeat_nothing(start_local, make_agent, logs, chance, figure):
    server = start_local("logs:4")
    sources = [oracle.Source(number) for number in range(3)]
    paths = [logs / f"{name}.log" for name in ("one", "two", "three")]
    agent = make_agent(paths[0], server.url, "logs")
    agent.inputs["two"] = {"type": "file", "paths": [str(paths[1])], "start_at": "beginning"}
    run = agent.start()
    stopping = threading.Event()

    def write():
        while not stopping.wait(0.005):
            for source, path in zip(sources, paths):
                source.write(path, chance.randint(1, 200))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for count in range(25):
            time.sleep(chance.uniform(0.05, 0.3))
            # Each changes something else: inputs come, go and change, and what the output does.
            if count % 3 == 0:
                if "three" in agent.inputs:
                    del agent.inputs["three"]
                else:
                    agent.inputs["three"] = {"type": "file", "paths": [str(paths[2])], "start_at": "beginning"}
            if count % 3 == 1:
                agent.inputs["two"]["max_record"] = chance.choice(["1MiB", "100KiB", "512KiB"])
            agent.output |= dict(
                linger=chance.choice(["10ms", "100ms"]), aggregate_max_size=chance.choice(["10KiB", "50KiB"]),
                timeout=chance.choice(["5s", "10s"]), partition_key=chance.choice(["spread", "source", "=key"]),
            )
            # The log tells of a few in ten seconds.
            agent.write_config()
            run.process.send_signal(signal.SIGHUP)
    finally:
        stopping.set()
        writer.join(10)
    agent.inputs["three"] = {"type": "file", "paths": [str(paths[2])], "start_at": "beginning"}
    agent.write_config()
    run.process.send_signal(signal.SIGHUP)
    until(lambda: delivered(agent, *paths), 20, "everything to be delivered")
    assert run.terminate() == 0, run.log
    verdict = oracle.verify(server.url, "logs", sources)
    figure(f"26 reloads; {verdict}")
    assert run.log.count("another configuration is taken on") >= 5
    verdict.require_exact()


def test_another_endpoint_gets_what_comes_after_and_the_old_one_what_was_under_way(start_local, make_agent, logs, figure):
    first, second = start_local("logs:4"), start_local("other:3")
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(path, first.url, "logs")
    run = agent.start()
    for _ in range(20):
        source.write(path, 2000)
        time.sleep(0.01)
    assert "is taken on" in reload(agent, run, endpoint=second.url, stream="other")
    for _ in range(20):
        source.write(path, 2000)
        time.sleep(0.01)
    until(lambda: delivered(agent, path), 20, "everything to be delivered")
    assert run.terminate() == 0, run.log
    tallies = [
        oracle._tally(server.url, name, shard, bounds, drops=False, decoder=oracle.plain)
        for server, name in ((first, "logs"), (second, "other"))
        for shard, bounds in oracle.shards_of(oracle.client(server.url), name).items()
    ]
    verdict = oracle.judge([source], tallies)
    figure(f"{verdict}; {sum(len(tally.lines) for tally in tallies[:4])} lines to the first")
    verdict.require_exact()
    assert all(any(tally.lines for tally in part) for part in (tallies[:4], tallies[4:]))


@pytest.fixture
def slow_kinesis(start_local, chance, monkeypatch):
    """Kineses whose answers to some calls take a while."""
    with contextlib.ExitStack() as stack:

        def start(stream, **faulty):
            monkeypatch.setattr(faults, "FAULTS", [faulty.get("puts", faults.none)])
            monkeypatch.setattr(faults, "_ON_LISTS", [faulty.get("lists", faults.none)])
            server = start_local(stream)
            kinesis = faults.FaultyKinesis(server.url, random.Random(chance.random()), lambda _: None, timeout=10)
            stack.callback(kinesis.stop)
            kinesis.likelihood = 1
            return server, kinesis

        yield start


def test_keyed_records_go_to_another_stream_by_its_own_shards(start_local, slow_kinesis, make_agent, logs, figure):
    """Their names are the same in each stream: what is placed by another one's map would count as delivered."""

    def slowly(exchange):
        exchange.wait(1)
        faults.none(exchange)

    first, (second, kinesis) = start_local("logs:2"), slow_kinesis("other:5", lists=slowly)
    sources = [oracle.Source(number) for number in range(60)]
    agent = make_agent(logs / "*.log", first.url, "logs", partition_key="source")
    run = agent.start()
    stopping = threading.Event()

    def write():
        while not stopping.wait(0.002):
            for number, source in enumerate(sources):
                source.write(logs / f"{number}.log", 5)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(1)
        assert "is taken on" in reload(agent, run, endpoint=kinesis.url, stream="other")
        time.sleep(2)
    finally:
        stopping.set()
        writer.join(10)
    until(lambda: delivered(agent, *logs.glob("*.log")), 20, "everything to be delivered")
    assert run.terminate() == 0, run.log
    # As the KCL reads: an aggregate with a record of another shard's is dropped.
    tallies = [
        oracle._tally(server.url, name, shard, bounds, drops=True, decoder=oracle.plain)
        for server, name in ((first, "logs"), (second, "other"))
        for shard, bounds in oracle.shards_of(oracle.client(server.url), name).items()
    ]
    verdict = oracle.judge(sources, tallies)
    figure(f"{verdict}; {sum(len(tally.lines) for tally in tallies[:2])} lines to the first")
    verdict.require_exact()


def test_a_list_of_shards_that_was_asked_of_the_stream_before_is_not_taken_for_anothers(slow_kinesis, make_agent, logs):
    def slowly(exchange):
        exchange.wait(0.7)
        faults.none(exchange)

    server, kinesis = slow_kinesis("logs:2", lists=slowly)
    client = oracle.client(server.url)
    client.create_stream(StreamName="other", ShardCount=5)
    sources = [oracle.Source(number) for number in range(60)]
    for number, source in enumerate(sources):
        source.write(logs / f"{number}.log", 200)
    agent = make_agent(logs / "*.log", kinesis.url, "logs", partition_key="source")
    run = agent.start()
    run.wait_for("tailing file")
    # The first list is under way.
    assert "is taken on" in reload(agent, run, stream="other")
    until(lambda: delivered(agent, *logs.glob("*.log")), 20, "everything to be delivered")
    assert run.terminate() == 0, run.log
    tallies = [
        oracle._tally(server.url, "other", shard, bounds, drops=True, decoder=oracle.plain)
        for shard, bounds in oracle.shards_of(client, "other").items()
    ]
    oracle.judge(sources, tallies).require_exact()


def test_order_is_given_up_by_a_reload_in_full_flow(slow_kinesis, make_agent, logs):
    server, kinesis = slow_kinesis("logs:4", puts=faults.slow_answer)
    sources = [oracle.Source(number) for number in range(20)]
    agent = make_agent(logs / "*.log", kinesis.url, "logs", partition_key="source", ordered=True)
    run = agent.start()
    for ordered in (False, True, False):
        for _ in range(40):
            for number, source in enumerate(sources):
                source.write(logs / f"{number}.log", 50)
            time.sleep(0.005)
        assert "is taken on" in reload(agent, run, ordered=ordered)
    until(lambda: delivered(agent, *logs.glob("*.log")), 30, "everything to be delivered")
    assert run.terminate() == 0, run.log
    oracle.verify(server.url, "logs", sources).require_nothing_lost()


def test_a_faulty_configuration_is_refused_with_every_fault_and_the_old_one_stays(start_local, make_agent, logs):
    server = start_local("logs:4")
    source, path = oracle.Source(1), logs / "app.log"
    agent = make_agent(path, server.url, "logs")
    run = agent.start()
    source.write(path, 1000)
    until(lambda: delivered(agent, path), 10, "the first lines")
    assert "is refused, the old one stays" in reload(agent, run, linger="soon", compresion="gzip")
    assert "penstock.toml:" in run.log and "linger" in run.log and "there is no such key" in run.log
    source.write(path, 1000)
    until(lambda: delivered(agent, path), 10, "the lines after it")
    for key in ("linger", "compresion"):
        del agent.output[key]
    agent.agent["state_dir"] = agent.folder / "elsewhere"
    line = reload(agent, run)
    assert "only a restart can" in line and "agent.state_dir" in line
    source.write(path, 1000)
    agent.agent["state_dir"] = agent.state
    until(lambda: delivered(agent, path), 10, "the lines after that")
    assert run.terminate() == 0, run.log
    oracle.verify(server.url, "logs", [source]).require_exact()


def test_an_address_that_cannot_be_had_leaves_the_old_one(start_local, make_agent):
    server = start_local("logs:1")
    with socket.socket(type=socket.SOCK_DGRAM) as taken, socket.socket(type=socket.SOCK_DGRAM) as sender:
        taken.bind(("127.0.0.1", 0))
        with socket.socket(type=socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            there = free.getsockname()
        agent = listen(make_agent, server.url, "logs", [f"udp://127.0.0.1:{there[1]}"])
        run = agent.start()
        run.wait_for("listening")
        stream = f"tcp://127.0.0.1:{there[1]}"
        for refused in ([f"udp://127.0.0.1:{taken.getsockname()[1]}"], ["udp://192.0.2.1:5514", stream]):
            agent.inputs["sock"]["listen"] = refused
            line = reload(agent, run)
            assert "cannot be taken on" in line and refused[0].removeprefix("udp://") in line, run.log
        # Nor does anybody listen on what was had besides.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(there, 5)
        sender.sendto(b"still there", there)
        assert stored(server.url, "logs", 1) == [b"still there"]
        # One that it has itself is another matter.
        agent.inputs["sock"]["listen"] = [f"udp://0.0.0.0:{there[1]}"]
        assert "is taken on" in reload(agent, run)
        sender.sendto(b"and after", there)
        assert sorted(stored(server.url, "logs", 2)) == [b"and after", b"still there"]
    assert run.terminate() == 0, run.log


def test_the_log_level_changes_with_a_reload(start_local, make_agent, logs):
    server = start_local("logs:4")
    agent = make_agent(logs / "app.log", server.url, "logs", agent={"log_level": "error"})
    run = agent.start()
    source = oracle.Source(1)
    source.write(logs / "app.log", 10)
    until(lambda: delivered(agent, logs / "app.log"), 10, "the first lines")
    assert run.log == ""
    agent.agent["log_level"] = "info"
    reload(agent, run)
    assert run.terminate() == 0
    assert "stopping" in run.log


def test_inputs_of_conf_d_come_and_go_with_a_reload(start_local, make_agent, logs, penstock):
    server = start_local("logs:4")
    sources = [oracle.Source(number) for number in range(2)]
    paths = [logs / "one.log", logs / "two.log"]
    agent = make_agent(paths[0], server.url, "logs")
    run = agent.start()
    run.wait_for("penstock runs")
    folder = agent.folder / "conf.d"
    folder.mkdir()
    more = folder / "two.toml"
    more.write_text(f'[inputs.two]\ntype = "file"\npaths = ["{paths[1]}"]\nstart_at = "beginning"\n')
    assert "is taken on" in reload(agent, run)
    for source, path in zip(sources, paths):
        source.write(path, 1000)
    until(lambda: delivered(agent, *paths), 10, "both files")
    checked = penstock("check", "--config", agent.config).stdout.decode()
    assert f"input two of {more}: {paths[1]}" in checked and f"input app: {paths[0]}" in checked

    # A fault there is refused with its place, and the input goes on.
    text = more.read_text()
    more.write_text(text + "[outputs.other]\n")
    assert "is refused" in reload(agent, run)
    assert f"{more}:5:2: outputs: only [inputs.NAME] may stand here: move it to {agent.config}" in run.log
    sources[1].write(paths[1], 1000)
    until(lambda: delivered(agent, *paths), 10, "the file of the old configuration")

    more.unlink()
    assert "is taken on" in reload(agent, run)
    assert run.terminate() == 0, run.log
    oracle.verify(server.url, "logs", sources).require_exact()
