"""What really goes over the wire, and what the agent makes of every kind of answer."""

import datetime
import re
import time

import botocore.auth
import oracle
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import environment, until
from wire import FakeKinesis, Hang, Raw, Reset, error, user_data

HTML = b"<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>"


@pytest.fixture
def fake():
    server = FakeKinesis()
    yield server
    server.stop()


@pytest.fixture
def source(logs):
    """10,000 lines: about 43 aggregates, three calls."""
    source = oracle.Source(1)
    source.write(logs / "app.log", 10_000)
    return source


def counts(records):
    """How often each line is in `records`."""
    found = {}
    for data in user_data(records):
        line = oracle.parse(data)
        assert line, data[:100]
        found[line[1]] = found.get(line[1], 0) + 1
    return found


def require_all_stored(fake, source, twice=0):
    found = counts(fake.stored)
    assert sorted(found) == list(range(source.written)), f"{len(found)} of {source.written}"
    assert sum(found.values()) == source.written + twice


def run(make_agent, fake, logs, **options):
    env = options.pop("env", None)
    output = {"call_max_size": "512KiB", "max_in_flight": 4} | options
    run = make_agent(logs / "*.log", fake.url, "logs", **output).once(env=env)
    assert run.process.returncode == 0, run.log
    return run


# Requests


def signed_by_botocore(request, credentials):
    """The Authorization header that botocore makes for the same request at the same time."""
    authorization = request.header("Authorization")
    signed = re.search(r"SignedHeaders=([^,]+)", authorization)[1].split(";")
    time = datetime.datetime.strptime(request.header("X-Amz-Date"), "%Y%m%dT%H%M%SZ")
    again = AWSRequest(method=request.method, url=f"http://{request.header('Host')}{request.path}", data=request.body)
    for name in signed:
        assert request.header(name) is not None, f"{name} is signed and was not sent"
        again.headers[name] = request.header(name)
    original = botocore.auth.get_current_datetime
    botocore.auth.get_current_datetime = lambda: time.replace(tzinfo=datetime.timezone.utc)
    try:
        botocore.auth.SigV4Auth(credentials, "kinesis", oracle.REGION).add_auth(again)
    finally:
        botocore.auth.get_current_datetime = original
    return again.headers["Authorization"]


@pytest.mark.parametrize(
    "token", [None, "FwoGZXIvYXdzE//token+with/odd=characters=="], ids=["without token", "with token"]
)
@pytest.mark.parametrize("wire", ["cbor", "json"])
def test_every_request_on_the_wire_is_signed_as_botocore_signs_it(fake, source, make_agent, logs, figure, wire, token):
    key = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    run(make_agent, fake, logs, wire=wire, env=environment(**dict(zip(names, key)), AWS_SESSION_TOKEN=token))
    assert {request.operation for request in fake.requests} == {"ListShards", "PutRecords"}
    assert len(fake.requests) >= 4
    for request in fake.requests:
        assert (request.method, request.path) == ("POST", "/")
        assert request.is_cbor == (wire == "cbor")
        assert request.header("X-Amz-Security-Token") == token
        authorization = request.header("Authorization")
        assert authorization == signed_by_botocore(request, Credentials(*key, token))
        signed = set(re.search(r"SignedHeaders=([^,]+)", authorization)[1].split(";"))
        amazon = {name.lower() for name, _ in request.headers if name.lower().startswith("x-amz-")}
        assert amazon | {"host", "content-type"} <= signed
        assert request.header("Expect") is None and request.header("Transfer-Encoding") is None
        assert request.header("Accept") is None
        stamp = datetime.datetime.strptime(request.header("X-Amz-Date") + "+0000", "%Y%m%dT%H%M%SZ%z")
        assert abs(time.time() - stamp.timestamp()) < 60
    require_all_stored(fake, source)
    figure(f"{len(fake.requests)} requests with botocore's signature")


def test_connections_are_kept(fake, source, make_agent, logs, figure):
    run(make_agent, fake, logs, max_in_flight=2, call_max_size="64KiB")
    connections = {request.connection for request in fake.requests}
    figure(f"{len(fake.requests)} requests on {len(connections)} connections")
    assert len(fake.requests) > 30 and len(connections) <= 2
    require_all_stored(fake, source)


def test_no_call_is_larger_than_the_configuration_says_and_every_aggregate_has_its_hash_key(
    fake, source, make_agent, logs
):
    run(make_agent, fake, logs, call_max_size="128KiB", aggregate_max_size="10KiB", call_max_records=7)
    for request in fake.puts():
        records = request.records
        assert 1 <= len(records) <= 7
        assert sum(len(record["Data"]) + len(record["PartitionKey"].encode()) for record in records) <= 128 << 10
        for record in records:
            assert record["PartitionKey"] == "a" and len(record["Data"]) <= 10 << 10
            assert 0 <= int(record["ExplicitHashKey"]) < 1 << 128
            assert record["ExplicitHashKey"] == str(int(record["ExplicitHashKey"]))
    require_all_stored(fake, source)


def test_a_stream_arn_goes_into_every_request(fake, source, make_agent, logs):
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/logs"
    agent = make_agent(logs / "*.log", fake.url, "logs")
    agent.output |= {"stream": None, "stream_arn": arn}
    assert agent.once().process.returncode == 0
    assert all(request.value["StreamARN"] == arn and "StreamName" not in request.value for request in fake.requests)
    require_all_stored(fake, source)


# Answers


def failing(*places, code="ProvisionedThroughputExceededException"):
    """Some records of the call are refused."""

    def answer(request, usual):
        for place in places:
            usual["Records"][place] = {"ErrorCode": code, "ErrorMessage": "Rate exceeded for shard"}
        return usual | {"FailedRecordCount": len(places)}

    return answer


@pytest.mark.parametrize("wire", ["cbor", "json"])
@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "InternalFailure"])
def test_exactly_the_records_that_failed_are_sent_again(fake, source, make_agent, logs, wire, code):
    places = (0, 3, 5)
    fake.script = [failing(*places, code=code)]
    run(make_agent, fake, logs, wire=wire)
    # What a shard refuses may go to another, with another hash key: the user records in it stay together.
    sent = [tuple(user_data([record])) for request in fake.puts() for record in request.records]
    failed = {sent[place] for place in places}
    again = [lines for lines in sent if sent.count(lines) > 1]
    assert set(again) == failed and len(again) == 2 * len(failed)
    require_all_stored(fake, source)


def test_a_record_that_fails_many_times_in_a_row_arrives_in_the_end(fake, source, make_agent, logs):
    fake.script = [failing(0)] * 6
    run(make_agent, fake, logs)
    assert not fake.script
    require_all_stored(fake, source)


def test_failed_records_of_one_source_keep_their_order(fake, source, make_agent, logs):
    fake.script = [failing(2), failing(0), failing(1, 2)]
    run(make_agent, fake, logs, partition_key="source", max_in_flight=1)
    require_all_stored(fake, source)
    # Within each aggregate at least; across a partly failed call order is only promised with `ordered`.
    for record in fake.stored:
        lines = [oracle.parse(data)[1] for data in user_data([record])]
        assert lines == sorted(lines)


TROUBLES = {
    "500": lambda request, _: error(request, 500, "InternalFailure", "try again"),
    "503 in HTML": Raw(503, HTML, "text/html"),
    "502 and nothing": Raw(502, b"", "text/plain"),
    "throttled": lambda request, _: error(request, 400, "ProvisionedThroughputExceededException", "Rate exceeded"),
    "200 in HTML": Raw(200, HTML, "text/html"),
    "200 and nothing": Raw(200, b"", "application/x-amz-cbor-1.1"),
    "200 torn": Raw(200, b"\xa2\x67Records\x82\xa1", "application/x-amz-cbor-1.1"),
    "a result too few": lambda request, usual: usual | {"Records": usual["Records"][:-1]},
    "a result too many": lambda request, usual: usual | {"Records": usual["Records"] * 2},
    "no results": lambda request, usual: {"FailedRecordCount": 0},
    "reset": Reset(),
    "closed without an answer": Hang(0),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_call_that_fails_as_a_whole_is_sent_again_as_a_whole(fake, source, make_agent, logs, trouble):
    # The first call works: from then on the endpoint is known to understand CBOR.
    fake.script = [lambda request, usual: usual, TROUBLES[trouble], TROUBLES[trouble]]
    run_ = run(make_agent, fake, logs, max_in_flight=1)
    assert not fake.script
    puts = fake.puts()
    failed = sorted(record["Data"] for record in puts[1].records)
    sent = [record["Data"] for request in puts for record in request.records]
    assert all(sent.count(data) >= 2 for data in failed)
    assert all(sent.count(record["Data"]) == 1 for record in puts[0].records), "what was acknowledged is not sent again"
    require_all_stored(fake, source)
    assert all(request.is_cbor for request in fake.requests), "an outage is no refusal of CBOR"
    assert [line for line in run_.lines if " error " in line], run_.log


def test_a_call_that_hangs_is_given_up_after_the_timeout_and_sent_again(fake, source, make_agent, logs, figure):
    fake.script = [lambda request, usual: usual, Hang(30)]
    run_ = run(make_agent, fake, logs, max_in_flight=1, timeout="1s")
    figure(f"{run_.seconds:.1f} s with a timeout of 1 s")
    assert 1 <= run_.seconds < 5
    assert "timed out" in run_.log.lower()
    require_all_stored(fake, source)
    possible = int(re.search(r"duplicates_possible=(\d+)", run_.log)[1])
    hung = fake.puts()[1].records
    assert possible == len(user_data(hung)), "what may be in the stream twice is counted"


def test_an_outage_at_the_start_is_not_taken_for_a_refusal_of_cbor(fake, source, make_agent, logs):
    original = fake._answer
    answered = []

    def ill(request):
        answered.append(request)
        return Raw(503, HTML) if len(answered) <= 2 else original(request)

    fake._answer = ill
    run_ = run(make_agent, fake, logs)
    # The refused call was tried as JSON at once, which failed as well: nothing is learned, CBOR comes next.
    assert [request.is_cbor for request in answered[:3]] == [True, False, True]
    assert all(request.is_cbor for request in answered[2:])
    assert "the endpoint refuses CBOR" not in run_.log
    require_all_stored(fake, source)


@pytest.mark.parametrize(
    "code, status, ending", [("AccessDeniedException", 400, 77), ("ResourceNotFoundException", 400, 69)]
)
def test_a_permanent_refusal_in_the_middle_ends_run_once_and_the_next_start_goes_on(
    fake, source, make_agent, logs, code, status, ending
):
    fake.script = [lambda request, usual: usual, lambda request, usual: error(request, status, code, "no")]
    # In order, so that there is no gap before what was acknowledged.
    options = {"max_in_flight": 1, "call_max_size": "256KiB", "partition_key": "source"}
    agent = make_agent(logs / "*.log", fake.url, "logs", **options)
    run_ = agent.once(timeout=20)
    assert run_.process.returncode == ending, run_.log
    assert code in run_.log
    assert agent.once().process.returncode == 0
    # Once each: what was acknowledged is not sent again.
    require_all_stored(fake, source)


def test_a_clock_that_is_wrong_is_corrected_by_the_answer(fake, source, make_agent, logs):
    hour = datetime.timedelta(hours=1)
    date = (datetime.datetime.now(datetime.timezone.utc) + hour).strftime("%a, %d %b %Y %H:%M:%S GMT")

    def refuse(request, _):
        answer = error(request, 400, "InvalidSignatureException", "Signature expired: 1 is now earlier than 2")
        answer.headers["Date"] = date
        return answer

    fake.script = [refuse]
    # http.server sends a Date of its own: the first of the two would win.
    fake._server.RequestHandlerClass.send_response = lambda self, status, message=None: self.send_response_only(status)
    agent = make_agent(logs / "*.log", fake.url, "logs", max_in_flight=1)
    run_ = agent.start()
    until(lambda: len(fake.puts()) >= 2, 15, lambda: run_.log)
    stamp = datetime.datetime.strptime(fake.puts()[1].header("X-Amz-Date") + "+0000", "%Y%m%dT%H%M%SZ%z")
    assert abs(stamp - datetime.datetime.now(datetime.timezone.utc) - hour) < datetime.timedelta(seconds=30)
    assert run_.terminate() == 0
    require_all_stored(fake, source)
