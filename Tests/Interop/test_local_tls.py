"""The embedded Kinesis behind TLS, as boto3 and Python's own TLS meet it."""

import hashlib
import os
import socket
import ssl
import subprocess
import threading
import urllib.parse

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, SSLError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=penstock", "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True, timeout=30,
    )
    return files


@pytest.fixture
def start(start_local, certificate):
    cert, key = certificate
    return lambda *options: start_local("logs:2", f"--tls-cert={cert}", f"--tls-key={key}", *options).url


def client_for(url, verify):
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client(
        "kinesis", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b",
        config=config, verify=str(verify),
    )


def address(url):
    parts = urllib.parse.urlsplit(url)
    return parts.hostname, parts.port


def test_calls_of_every_size_go_through_tls(start, certificate):
    url = start()
    assert url.startswith("https://127.0.0.1:")
    kinesis = client_for(url, certificate[0])
    sent = [os.urandom(size) for size in (0, 1, 16_383, 16_384, 16_385, 300_000, (1 << 20) - 1)]
    for data in sent:
        kinesis.put_record(StreamName="logs", PartitionKey="k", ExplicitHashKey="0", Data=data)
    largest = [{"PartitionKey": "k", "Data": os.urandom((1 << 20) - 1)} for _ in range(10)]
    assert kinesis.put_records(StreamName="logs", Records=largest)["FailedRecordCount"] == 0
    iterator = kinesis.get_shard_iterator(
        StreamName="logs", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = kinesis.get_records(ShardIterator=iterator, Limit=len(sent))["Records"]
    assert [hashlib.sha256(record["Data"]).digest() for record in records] == [
        hashlib.sha256(data).digest() for data in sent
    ]


def test_many_clients_speak_tls_at_once(start, certificate):
    url = start()
    failures = []

    def work():
        try:
            kinesis = client_for(url, certificate[0])
            for _ in range(20):
                entries = [{"PartitionKey": str(number), "Data": b"x" * 5000} for number in range(50)]
                assert kinesis.put_records(StreamName="logs", Records=entries)["FailedRecordCount"] == 0
        except Exception as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_who_does_not_know_the_certificate_does_not_speak_to_it(start, certificate):
    url = start()
    with pytest.raises(SSLError):
        client_for(url, ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt").list_streams()
    assert client_for(url, certificate[0]).list_streams()["StreamNames"] == ["logs"]


def test_what_is_no_tls_is_not_served(start, certificate):
    url = start()
    for noise in (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", os.urandom(300), b"\x16\x03\x01\x00\x05abcde"):
        with socket.create_connection(address(url), timeout=10) as plain:
            plain.sendall(noise)
            plain.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while data := plain.recv(4096):
                    answer += data
            except ConnectionResetError:
                pass
            assert b"HTTP/1.1" not in answer
    assert client_for(url, certificate[0]).list_streams()["StreamNames"] == ["logs"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_below_1_2_is_refused(start):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    url = start()
    with socket.create_connection(address(url), timeout=10) as plain:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            context.wrap_socket(plain)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(address(url), timeout=10) as plain, context.wrap_socket(plain) as secure:
        assert secure.version() == "TLSv1.2"


def test_an_answer_ends_with_a_farewell_and_a_reset_without(start):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = (
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Kinesis_20131202.ListStreams\r\nConnection: close\r\n"
        b"Content-Type: application/x-amz-json-1.1\r\nContent-Length: 2\r\n\r\n{}"
    )

    def answer(url):
        # Without suppress_ragged_eofs, an end that was not announced is an error.
        with socket.create_connection(address(url), timeout=10) as plain:
            with context.wrap_socket(plain, suppress_ragged_eofs=False) as secure:
                secure.sendall(request)
                received = b""
                while data := secure.recv(65536):
                    received += data
                return received

    assert answer(start()).startswith(b"HTTP/1.1 200 OK")
    with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
        answer(start("--fault=reset"))


def test_faults_come_through_tls(start, certificate):
    url = start("--fault=truncate:op=PutRecords,times=1", "--fault=html:op=ListShards,times=1")
    kinesis = client_for(url, certificate[0])
    records = [{"PartitionKey": "k", "Data": b"x"}] * 10
    with pytest.raises(HTTPClientError):
        kinesis.put_records(StreamName="logs", Records=records)
    assert kinesis.put_records(StreamName="logs", Records=records)["FailedRecordCount"] == 0
    with pytest.raises(ClientError):
        kinesis.list_shards(StreamName="logs")
    assert len(kinesis.list_shards(StreamName="logs")["Shards"]) == 2


def test_files_that_are_no_certificate_or_not_its_key_are_told(penstock, certificate, tmp_path):
    cert, key = certificate
    other = tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", other],
        check=True, capture_output=True, timeout=30,
    )
    for files, named in (((tmp_path / "none", key), "none"), ((key, key), "key.pem"), ((cert, other), "other.pem")):
        result = penstock("local", "--port", 0, "--tls-cert", files[0], "--tls-key", files[1])
        assert result.returncode == 69 and f"{named}: ".encode() in result.stderr, result.stderr
    result = penstock("local", "--port", 0, "--tls-cert", cert)
    assert result.returncode == 64 and b"--tls-cert and --tls-key go together" in result.stderr
