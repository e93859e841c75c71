"""moto 5.2.1 understands no CBOR: the agent falls back to JSON once, remembers, and loses nothing.

moto's own faults are left alone: it routes the last hash key of a shard to the next one, knows fewer limits, and loses
records when calls come at the same time (two threads of its server take one sequence number), so it gets one at a time.
The embedded Kinesis that refuses CBOR (`local --refuse-cbor`) takes the full million.
"""

import collections
import re
import time

import oracle

FALLBACK = "the endpoint refuses CBOR, speaking JSON"


def test_moto_gets_every_line_as_json_after_one_fallback(moto_server, make_agent, logs, figure):
    kinesis = oracle.client(moto_server.url)
    kinesis.create_stream(StreamName="logs", ShardCount=4)
    sources = [oracle.Source(number) for number in range(4)]
    for source in sources:
        source.write(logs / f"app-{source.number}.log", 250_000)
    before = len(moto_server.log.read_text(errors="replace"))
    agent = make_agent(logs / "*.log", moto_server.url, "logs", timeout="60s", max_in_flight=1)
    run = agent.once(timeout=180)
    assert run.process.returncode == 0, run.log
    assert run.log.count(FALLBACK) == 1, run.log
    # One call was refused, the first; all others were understood.
    answers = re.findall(r'POST / HTTP/1\.1\S*" (\d+)', moto_server.log.read_text(errors="replace")[before:])
    assert answers[0] == "500" and set(answers[1:]) == {"200"}, collections.Counter(answers)
    began = time.monotonic()
    verdict = oracle.verify(moto_server.url, "logs", sources)
    figure(
        f"{verdict}; {len(answers)} calls, 1 refused; agent {run.seconds:.1f} s, peak {run.peak / (1 << 20):.1f} MiB; "
        f"verified in {time.monotonic() - began:.1f} s"
    )
    verdict.require_exact()


def test_a_million_lines_reach_an_endpoint_that_refuses_cbor(start_local, make_agent, logs, figure):
    server = start_local("logs:4", "--memory=1GiB", "--refuse-cbor")
    sources = [oracle.Source(number) for number in range(4)]
    for source in sources:
        source.write(logs / f"app-{source.number}.log", 250_000)
    agent = make_agent(logs / "*.log", server.url, "logs")
    run = agent.once(timeout=120)
    assert run.process.returncode == 0, run.log
    assert run.log.count(FALLBACK) == 1, run.log
    verdict = oracle.verify(server.url, "logs", sources)
    figure(f"{verdict}; agent {run.seconds:.2f} s, CPU {run.cpu:.2f} s, peak {run.peak / (1 << 20):.1f} MiB")
    verdict.require_exact()
    assert 0 < run.peak < (256 + 32) << 20, "memory_limit and 32 MiB are the most"


def test_wire_json_never_tries_cbor_and_wire_cbor_never_falls_back(start_local, make_agent, logs):
    server = start_local("logs:4", "--refuse-cbor")
    source = oracle.Source(1)
    source.write(logs / "app.log", 1_000)
    forced = make_agent(logs / "app.log", server.url, "logs", wire="cbor", agent={"shutdown_timeout": "1s"})
    run = forced.once(timeout=10)
    assert run.process.returncode == 69 and FALLBACK not in run.log, run.log
    agent = make_agent(logs / "app.log", server.url, "logs", wire="json")
    run = agent.once()
    assert run.process.returncode == 0 and FALLBACK not in run.log, run.log
    oracle.verify(server.url, "logs", [source]).require_exact()
