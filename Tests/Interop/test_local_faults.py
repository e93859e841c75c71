"""Faults of the embedded Kinesis on real connections, and its account of what callers were not told."""

import base64
import collections
import datetime
import email.utils
import http.client
import json
import re
import socket
import threading
import time
import urllib.parse

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError
from botocore.exceptions import ReadTimeoutError
from clients import client_for, code_of
from conftest import ROOT, until
from test_local_reshard import read_all


class Local:
    """An embedded Kinesis with one stream, and the admin calls that change its faults."""

    def __init__(self, server):
        self.url, self.log = server.url, server.log
        self.host = urllib.parse.urlsplit(server.url).netloc
        self.kinesis = client_for(server.url)

    def admin(self, method, path, value=None):
        connection = http.client.HTTPConnection(self.host, timeout=10)
        connection.request(method, f"/_penstock/{path}", None if value is None else json.dumps(value))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def add(self, *rules):
        status, answer = self.admin("POST", "faults", [{"fault": rule} for rule in rules])
        assert status == 200, answer
        return [rule["id"] for rule in answer["faults"]]

    @property
    def faults(self):
        return self.admin("GET", "faults")[1]["faults"]

    def put(self, count=10, client=None):
        entries = [{"PartitionKey": str(number), "Data": b"x%d" % number} for number in range(count)]
        return (client or self.kinesis).put_records(StreamName="logs", Records=entries)

    @property
    def stored(self):
        """How many records can be read."""
        count = 0
        for shard in self.kinesis.list_shards(StreamName="logs")["Shards"]:
            iterator = self.kinesis.get_shard_iterator(
                StreamName="logs", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )
            count += len(self.kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"])
        return count

    def raw(self, operation, value, timeout=10, **headers):
        """Calls without an SDK; gives status, headers, and the body as it came."""
        connection = http.client.HTTPConnection(self.host, timeout=timeout)
        headers = {"X-Amz-Target": f"Kinesis_20131202.{operation}", "Content-Type": "application/x-amz-json-1.1"} | headers
        connection.request("POST", "/", json.dumps(value), headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.fixture
def local(start_local):
    return lambda *options: Local(start_local("logs:4", *options))


def test_records_fail_by_code_shard_and_rate(local, figure):
    server = local(
        "--seed=7", "--fault=record:code=ProvisionedThroughputExceededException,shard=2",
        "--fault=record:code=InternalFailure,rate=10%",
    )
    seen, failed = 0, {}
    for _ in range(10):
        answer = server.put(500)
        codes = [record.get("ErrorCode") for record in answer["Records"]]
        seen += len(codes)
        assert answer["FailedRecordCount"] == sum(code is not None for code in codes)
        for record in answer["Records"]:
            if "ErrorCode" in record:
                assert "ShardId" not in record and record["ErrorMessage"]
            failed[record.get("ErrorCode")] = failed.get(record.get("ErrorCode"), 0) + 1
    figure(f"{failed} of {seen}")
    throttled, broken = server.faults
    assert throttled["hits"] == throttled["seen"] == failed["ProvisionedThroughputExceededException"]
    assert broken["hits"] == failed["InternalFailure"] and broken["seen"] == seen - throttled["seen"]
    assert 0.07 < broken["hits"] / broken["seen"] < 0.13
    shards = {record.get("ShardId") for record in server.put(500)["Records"]}
    assert shards == {None} | {f"shardId-{number:012}" for number in (0, 1, 3)}


def test_the_same_seed_hits_the_same_calls_and_is_printed(local):
    def outcome(server):
        codes = []
        for _ in range(60):
            try:
                server.kinesis.list_streams()
                codes.append(None)
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])
        return codes

    faults = ["--fault=error:code=LimitExceededException,rate=30%", "--fault=error:status=500,rate=30%"]
    first = local(*faults)
    seed = re.search(r"Faults are drawn with --seed (\d+)", first.log.read_text())[1]
    codes = outcome(first)
    assert set(codes) == {None, "LimitExceededException", "InternalFailure"}
    assert outcome(local(*faults, f"--seed={seed}")) == codes
    assert outcome(local(*faults, f"--seed={int(seed) ^ 1}")) != codes


@pytest.mark.parametrize(
    "rule, error",
    [
        ("reset", (ConnectionClosedError, EndpointConnectionError, HTTPClientError)),
        ("hang:for=30s", ReadTimeoutError),
        ("error:status=500", ClientError),
        ("html:status=503", ClientError),
    ],
)
def test_a_call_fails_before_or_after_it_stored(local, rule, error):
    server = local()
    config = Config(retries={"total_max_attempts": 1}, read_timeout=1)
    client = boto3.client(
        "kinesis", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b",
        config=config,
    )
    joint = "," if ":" in rule else ":"
    before, = server.add(rule + f"{joint}op=PutRecords,times=2")
    for _ in range(2):
        with pytest.raises(error):
            server.put(client=client)
    assert server.stored == 0
    after, = server.add(rule + f"{joint}op=PutRecords,times=3,when=after")
    for _ in range(3):
        with pytest.raises(error):
            server.put(client=client)
    assert server.stored == 30
    account = {fault["id"]: (fault["hits"], fault["untold_calls"], fault["untold_records"]) for fault in server.faults}
    assert account == {before: (2, 0, 0), after: (3, 3, 30)}
    assert server.put()["FailedRecordCount"] == 0


def test_an_injected_answer_is_what_aws_or_a_load_balancer_would_send(local):
    server = local()
    server.add("error:code=ExpiredTokenException,times=1", "html:status=502,times=1", "error:status=503,times=1")
    status, headers, body = server.raw("ListStreams", {})
    assert status == 400 and headers["Content-Type"] == "application/x-amz-json-1.1"
    assert json.loads(body)["__type"] == headers["x-amzn-ErrorType"] == "ExpiredTokenException"
    assert headers["x-amzn-RequestId"]
    status, headers, body = server.raw("ListStreams", {})
    assert status == 502 and headers["Content-Type"] == "text/html" and body.startswith(b"<html>")
    status, headers, body = server.raw("ListStreams", {})
    assert status == 503 and json.loads(body)["__type"] == "ServiceUnavailable"
    assert server.raw("ListStreams", {})[0] == 200


def test_a_reset_is_a_reset(local):
    server = local()
    server.add("reset:when=after")
    with pytest.raises(ConnectionResetError):
        server.raw("ListStreams", {})


def test_a_cut_answer_breaks_off_in_its_middle(local):
    server = local()
    rule, = server.add("truncate:op=PutRecords")
    entries = [{"PartitionKey": "k", "Data": "eA=="}] * 10
    with pytest.raises(http.client.IncompleteRead) as caught:
        server.raw("PutRecords", {"StreamName": "logs", "Records": entries})
    assert 0 < len(caught.value.partial) and caught.value.expected > 0
    with pytest.raises(HTTPClientError):
        server.put()
    assert server.stored == 20
    assert [(fault["untold_calls"], fault["untold_records"]) for fault in server.faults] == [(2, 20)]


@pytest.mark.parametrize("by", [-1, 2, -10])
def test_a_wrong_count_of_results_hides_what_was_stored(local, by):
    server = local(f"--fault=count:by={by},times=1")
    assert len(server.put(10)["Records"]) == 10 + by
    assert len(server.put(10)["Records"]) == 10
    assert server.stored == 20
    fault, = server.faults
    assert (fault["seen"], fault["hits"], fault["untold_calls"], fault["untold_records"]) == (2, 1, 1, 10)


def test_answers_come_late_and_requests_are_read_slowly(local):
    server = local()

    def seconds(call):
        began = time.monotonic()
        call()
        return time.monotonic() - began

    server.add("delay:by=300ms,op=ListStreams")
    # The upper bounds are far off: others use this machine, too.
    assert 0.3 <= seconds(server.kinesis.list_streams) < 20
    server.admin("DELETE", "faults")
    server.add("delay:by=200ms,when=after", "delay:by=200ms")
    assert 0.4 <= seconds(server.put) < 20
    server.admin("DELETE", "faults")
    server.add("slow:speed=10KiB,op=PutRecords,times=1")
    small = {"StreamName": "logs", "Records": [{"PartitionKey": "k", "Data": b"x" * 1000}] * 5}
    assert 0.5 <= seconds(lambda: server.kinesis.put_records(**small)) < 20
    server.add("slow:speed=1MiB,op=PutRecords")
    large = {"StreamName": "logs", "Records": [{"PartitionKey": "k", "Data": b"x" * (1 << 20 - 1)}] * 2}
    assert 0.8 <= seconds(lambda: server.kinesis.put_records(**large)) < 30
    server.admin("DELETE", "faults")
    assert any(seconds(lambda: server.kinesis.put_records(**large)) < 0.8 for _ in range(5))
    assert server.kinesis.list_streams()["StreamNames"] == ["logs"]


def test_a_delayed_call_whose_caller_goes_away_is_not_carried_out_or_accounted_for(local):
    server = local()
    before, = server.add("delay:by=1s,times=1")
    entries = {"StreamName": "logs", "Records": [{"PartitionKey": "k", "Data": "eA=="}] * 10}
    with pytest.raises(TimeoutError):
        server.raw("PutRecords", entries, timeout=0.3)
    after, = server.add("delay:by=1s,times=1,when=after")
    with pytest.raises(TimeoutError):
        server.raw("PutRecords", entries, timeout=0.3)
    time.sleep(1.2)
    assert server.stored == 10
    account = {fault["id"]: (fault["untold_calls"], fault["untold_records"]) for fault in server.faults}
    assert account == {before: (0, 0), after: (1, 10)}


def test_a_caller_that_goes_away_from_a_slow_read_leaves_nothing_behind(local):
    server = local("--fault=slow:speed=100KiB,op=PutRecords,times=5")
    entries = {"StreamName": "logs", "Records": [{"PartitionKey": "k", "Data": "eHh4" * 100_000}] * 2}
    for _ in range(5):
        with pytest.raises(TimeoutError):
            server.raw("PutRecords", entries, timeout=0.2)
    assert server.stored == 0
    assert server.put()["FailedRecordCount"] == 0


def test_a_key_expires_until_another_is_used(local):
    server = local("--fault=expire:skip=3,times=2")

    def client(key):
        return boto3.client(
            "kinesis", endpoint_url=server.url, region_name="us-east-1", aws_access_key_id=key,
            aws_secret_access_key="s", config=Config(retries={"total_max_attempts": 1}),
        )

    first, second, third = client("first"), client("second"), client("third")
    for _ in range(3):
        first.list_streams()
    for expired in (first, first, second, first):
        assert code_of(expired.list_streams) == "ExpiredTokenException"
    third.list_streams()
    assert code_of(server.put, client=second) == "ExpiredTokenException"
    fault, = server.faults
    assert fault["hits"] == 2


@pytest.mark.parametrize("options", [[], ["--access-key=test:test"]])
def test_a_clock_that_is_off_shows_in_the_date_and_refuses_signatures(local, options):
    server = local("--fault=clock:by=+20m", *options)
    with pytest.raises(ClientError) as caught:
        server.kinesis.list_streams()
    error = caught.value.response
    assert error["Error"]["Code"] == "InvalidSignatureException"
    assert "is now earlier than" in error["Error"]["Message"]
    theirs = email.utils.parsedate_to_datetime(error["ResponseMetadata"]["HTTPHeaders"]["date"])
    ahead = theirs - datetime.datetime.now(datetime.timezone.utc)
    assert 1190 < ahead.total_seconds() < 1210
    fault, = server.faults
    assert fault["hits"] == 1
    server.admin("DELETE", "faults")
    server.add("clock:by=-20m")
    assert "is still later than" in server_error(server)["Message"]
    server.admin("DELETE", "faults")
    # Within the service's tolerance.
    server.add("clock:by=2m")
    assert server.kinesis.list_streams()["StreamNames"] == ["logs"]


def server_error(server):
    with pytest.raises(ClientError) as caught:
        server.kinesis.list_streams()
    return caught.value.response["Error"]


def test_rules_are_added_shown_and_ended_while_calls_go_on(local):
    server = local()
    stop, answers = threading.Event(), []

    def work():
        client = client_for(server.url)
        while not stop.is_set():
            try:
                client.list_streams()
                answers.append(None)
            except ClientError as error:
                answers.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(answers) > 20, 10, "calls")
        status, answer = server.admin("POST", "faults", {"fault": "error", "code": "ThrottlingException", "times": 50})
        rule = answer["faults"][0]
        assert status == 200 and rule["fault"] == "error:code=ThrottlingException,times=50"
        until(lambda: server.faults[0]["hits"] == 50, 20, "fifty hits")
        assert server.admin("DELETE", f"faults/{rule['id']}")[1]["faults"][0]["hits"] == 50
        assert server.faults == []
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert set(answers) == {None, "ThrottlingException"} and answers.count("ThrottlingException") == 50


def test_a_shard_is_throttled_to_nothing_and_set_free_while_the_server_runs(local):
    server = local()
    codes = lambda: {record.get("ErrorCode") for record in server.put(100)["Records"]}  # noqa: E731
    assert codes() == {None}
    assert server.admin("POST", "limits", {"stream": "logs", "shard": 2, "percent": 0})[0] == 200
    assert codes() == {None, "ProvisionedThroughputExceededException"}
    assert server.admin("POST", "limits", {"stream": "logs", "shard": 2, "percent": 100})[0] == 200
    assert codes() == {None}
    status, answer = server.admin("POST", "limits", {"stream": "none", "shard": 2, "percent": 0})
    assert status == 400 and answer["error"] == "Stream none under account 000000000000 not found."


def test_what_admin_calls_cannot_do_is_told(local):
    server = local()
    status, answer = server.admin("POST", "faults", {"fault": "reset", "rate": 7})
    assert status == 400 and answer["error"] == '"reset:rate=7": rate is a share from 0 to 1, like 0.02 or 2%'
    assert server.admin("POST", "faults", {"kind": "reset"})[0] == 400
    assert server.admin("GET", "nonsense")[0] == 404
    assert server.admin("DELETE", "faults/9")[0] == 404
    assert server.faults == []


def test_a_fault_that_makes_no_sense_is_refused_with_what_to_do(penstock):
    for text, reason in {
        "resett": b"choose one of record, error, html, reset, hang, delay, slow, truncate, count, expire, clock",
        "reset:rate=lots": b"rate is a share from 0 to 1, like 0.02 or 2%",
        "hang:by=3s": b"hang does not know by: it takes for, when, op, rate, skip, times",
    }.items():
        result = penstock("local", "--port", 0, "--fault", text)
        assert result.returncode == 64 and reason in result.stderr, result.stderr


def test_two_clients_are_served_while_a_third_hangs(local):
    server = local()
    server.add("hang:for=20s,times=1")
    hanging = socket.create_connection(server.host.split(":"))
    body = b"{}"
    hanging.sendall(
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\n"
        b"Content-Type: application/x-amz-json-1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    until(lambda: server.faults[0]["hits"] == 1, 5, "the call to hang")
    for client in (server.kinesis, client_for(server.url)):
        assert client.list_streams()["StreamNames"] == ["logs"]
    hanging.settimeout(0.5)
    with pytest.raises(TimeoutError):
        hanging.recv(1)
    # A second call on a connection whose first has no answer is not served.
    hanging.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    hanging.settimeout(5)
    assert hanging.recv(1) == b""
    hanging.close()


class Producer(threading.Thread):
    """Sends records until each is acknowledged: what has no answer that can be trusted, again."""

    def __init__(self, server, number, calls):
        super().__init__()
        self.server, self.number, self.calls = server, number, calls
        self.acknowledged, self.tries, self.problem = [], 0, None

    def run(self):
        try:
            for call in range(self.calls):
                self.deliver([b"%d-%d-%d" % (self.number, call, at) for at in range(50)])
        except Exception as problem:  # noqa: BLE001
            self.problem = problem

    def deliver(self, waiting):
        deadline = time.monotonic() + 60
        while waiting:
            assert time.monotonic() < deadline
            self.tries += 1
            records = [
                {"PartitionKey": data.decode(), "Data": base64.b64encode(data).decode()} for data in waiting
            ]
            try:
                status, _, body = self.server.raw("PutRecords", {"StreamName": "logs", "Records": records})
            except (OSError, http.client.HTTPException):
                continue
            results = json.loads(body)["Records"] if status == 200 else []
            if len(results) != len(records):
                continue
            failed = [data for data, result in zip(waiting, results) if "ErrorCode" in result]
            self.acknowledged += [data for data in waiting if data not in failed]
            waiting = failed


def test_what_a_producer_sends_twice_is_what_the_account_says_it_was_not_told(local, figure, chance):
    server = local(f"--seed={chance.randrange(1 << 31)}")
    server.add(
        "record:rate=2%", "record:code=ProvisionedThroughputExceededException,rate=10%",
        "reset:when=after,op=PutRecords,rate=3%", "reset:op=PutRecords,rate=3%", "truncate:op=PutRecords,rate=3%",
        "hang:for=100ms,when=after,op=PutRecords,rate=3%", "hang:for=100ms,op=PutRecords,rate=3%",
        "count:by=-1,rate=3%", "count:by=1,rate=3%", "html:when=after,op=PutRecords,rate=3%",
        "error:status=500,when=after,op=PutRecords,rate=3%", "error:status=503,op=PutRecords,rate=3%",
        "delay:by=20ms,when=after,op=PutRecords,rate=5%", "slow:speed=256KiB,op=PutRecords,rate=5%",
    )
    producers = [Producer(server, number, 60) for number in range(4)]
    for producer in producers:
        producer.start()
    for count in (6, 3, 5, 4):
        time.sleep(0.4)
        server.kinesis.update_shard_count(StreamName="logs", TargetShardCount=count, ScalingType="UNIFORM_SCALING")
    for producer in producers:
        producer.join(120)
    assert [producer.problem for producer in producers] == [None] * 4
    acknowledged = [data for producer in producers for data in producer.acknowledged]
    assert len(acknowledged) == len(set(acknowledged)) == 4 * 60 * 50
    stored = collections.Counter(data for records in read_all(server.kinesis, "logs").values() for data in records)
    assert set(stored) == set(acknowledged)
    twice = sum(stored.values()) - len(stored)
    faults = server.faults
    assert all(fault["hits"] for fault in faults), faults
    untold = sum(fault["untold_records"] for fault in faults)
    figure(f"{len(acknowledged)} records in {sum(each.tries for each in producers)} calls, {untold} untold, {twice} twice")
    assert twice == untold


def test_every_fault_in_the_readme_and_the_help_is_one(local, penstock):
    readme = (ROOT / "README.md").read_text()
    rules = re.findall(r"--fault (\S+)", readme)
    for kind, own in re.findall(r"^\| `([a-z]+)` \|[^|]*\|([^|]*)\|$", readme, re.MULTILINE):
        rules.append(",".join([kind, *re.findall(r"`(\S+=\S+)`", own)]).replace(",", ":", 1))
    assert len(rules) == 4 + 11
    answer = local().admin("POST", "faults", [{"fault": rule} for rule in rules])
    assert answer[0] == 200, answer
    help = penstock("local", "--help").stdout.decode()
    for rule in rules:
        assert re.search(rf"^ +{rule.split(':')[0]} ", help, re.MULTILINE)


def test_the_readme_s_admin_calls_do_what_stands_there(local):
    server = local("--seed=7")
    bodies = re.findall(r"curl -d '(\{.*?\})' http://127.0.0.1:4567/_penstock/(\w+)", (ROOT / "README.md").read_text())
    for body, path in bodies:
        body = json.loads(body) | ({"stream": "logs"} if path == "limits" else {})
        assert server.admin("POST", path, body)[0] == 200
    for _ in range(3):
        with pytest.raises(HTTPClientError):
            server.put(500)
    shown, = server.faults
    assert shown == {
        "id": 1, "fault": "truncate:op=PutRecords,times=3", "seen": 3, "hits": 3, "untold_calls": 3,
        "untold_records": 1500,
    }
    assert server.stored == 1500
