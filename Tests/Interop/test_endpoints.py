"""Where Kinesis is: every region as botocore resolves it, and through proxies and TLS on loopback."""

import base64
import http.client
import itertools
import json
import pathlib
import select
import socket
import ssl
import threading

import botocore
import botocore.session
import keys
import oracle
import pytest
from botocore.endpoint_provider import EndpointProvider
from authority import Authority
from conftest import environment

ACCOUNT = "123456789012"


def regions():
    """Every region that botocore knows, with its partition."""
    with open(pathlib.Path(botocore.__file__).parent / "data" / "partitions.json", encoding="utf-8") as file:
        partitions = json.load(file)["partitions"]
    return [
        (partition["id"], region)
        for partition in partitions for region in partition["regions"] if not region.endswith("-global")
    ]


def test_every_region_fips_and_dual_stack_is_where_botocore_has_it(penstock, tmp_path, figure):
    """The URLs of botocore's rules, for a name and for an ARN, for calls with records and about the stream."""
    config = tmp_path / "penstock.toml"
    loader = botocore.session.Session().get_component("data_loader")
    rules = loader.load_service_model("kinesis", "endpoint-rule-set-1")
    provider = EndpointProvider(rules, loader.load_data("partitions"))
    variants = list(itertools.product(regions(), (False, True), (False, True), (False, True)))
    for (partition, region), fips, dual_stack, by_arn in variants:
        arn = f"arn:{partition}:kinesis:{region}:{ACCOUNT}:stream/logs"
        data, control = (
            provider.resolve_endpoint(
                Region=region, UseFIPS=fips, UseDualStack=dual_stack, OperationType=plane,
                **({"StreamARN": arn} if by_arn else {}),
            ).url
            for plane in ("data", "control")
        )
        named = f'stream_arn = "{arn}"' if by_arn else f'region = "{region}"\nstream = "logs"'
        config.write_text(
            '[inputs.a]\ntype = "file"\npaths = ["/x/*.log"]\n[outputs.o]\ntype = "kinesis"\n'
            f"{named}\nfips = {str(fips).lower()}\ndual_stack = {str(dual_stack).lower()}\n"
        )
        result = penstock("check", "--config", config)
        assert result.returncode == 0, result.stderr
        place = result.stdout.decode().rsplit(" at ", 1)[1].strip()
        assert place == (data if data == control else f"{data} and {control}"), (region, fips, dual_stack, by_arn)
    figure(f"{len(variants)} variants of {len(variants) // 8} regions")
    assert len(variants) > 300


def test_the_environments_endpoint_is_taken_where_none_is_configured(start_local, make_agent, logs):
    server = start_local("logs:2")
    source = oracle.Source(1)
    source.write(logs / "app.log", 100)
    agent = make_agent(logs / "*.log", "", "logs", region="us-east-1", agent={"shutdown_timeout": "1s"})
    env = environment(AWS_ENDPOINT_URL_KINESIS=server.url, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert agent.once(env=env).process.returncode == 0
    oracle.verify(server.url, "logs", [source]).require_exact()


# TLS


class TLSFront:
    """Takes TLS on loopback and passes on what is in it."""

    def __init__(self, url, certificate, *, versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if versions[1] < ssl.TLSVersion.TLSv1_2:
            # Debian's OpenSSL allows older ones only to who asks for it.
            self._context.set_ciphers("ALL:@SECLEVEL=0")
        self._context.minimum_version, self._context.maximum_version = versions
        self._context.load_cert_chain(certificate)
        self._behind = url.removeprefix("http://")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://localhost:{self.port}"
        self.versions = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection):
        host, port = self._behind.split(":")
        try:
            with self._context.wrap_socket(connection, server_side=True) as front:
                self.versions.add(front.version())
                with socket.create_connection((host, int(port))) as behind:
                    pipe(front, behind)
        except OSError:
            connection.close()

    def stop(self):
        self._listener.close()


def pipe(left, right):
    """Passes bytes in both directions until one side ends."""
    while True:
        pending = isinstance(left, ssl.SSLSocket) and left.pending()
        ready = [left] if pending else select.select([left, right], [], [], 30)[0]
        if not ready:
            return
        for one in ready:
            data = one.recv(1 << 16)
            if not data:
                return
            (right if one is left else left).sendall(data)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def front(local_kinesis):
    fronts = []

    def start(certificate, **options):
        fronts.append(TLSFront(local_kinesis.url, certificate, **options))
        return fronts[-1]

    yield start
    for each in fronts:
        each.stop()


@pytest.fixture
def send(make_agent, logs, stream):
    """Runs an agent once with a hundred lines; returns the run."""
    source = oracle.Source(1)
    source.write(logs / "app.log", 100)

    def send(url, code, *, env=None, **output):
        agent = make_agent(logs / "*.log", url, stream, agent={"shutdown_timeout": "1s"}, **output)
        run = agent.once(env=env or environment(), timeout=20)
        assert run.process.returncode == code, run.log
        return run

    send.require_exact = lambda kinesis: oracle.verify(kinesis.url, stream, [source]).require_exact()
    return send


def test_a_certificate_that_nobody_knows_is_refused_until_ca_file_names_its_authority(
    authority, front, send, local_kinesis
):
    tls = front(authority.certificate())
    run = send(tls.url, 69)
    assert "the endpoint's certificate is not trusted: set ca_file" in run.log
    send(tls.url, 0, ca_file=authority.file)
    assert tls.versions == {"TLSv1.3"}
    send.require_exact(local_kinesis)


def test_the_environments_bundle_is_trusted_too_and_ca_file_before_it(authority, front, send, local_kinesis):
    tls = front(authority.certificate())
    run = send(tls.url, 69, env=environment(AWS_CA_BUNDLE=str(authority.file)), ca_file="/nonexistent/ca.pem")
    assert "ca_file cannot be read" in run.log
    send(tls.url, 0, env=environment(AWS_CA_BUNDLE=str(authority.file)))
    send.require_exact(local_kinesis)


def test_a_certificate_signed_by_itself_is_refused_until_it_is_the_ca_file(authority, front, send, local_kinesis):
    certificate = authority.certificate(signed_by_itself=True)
    tls = front(certificate)
    assert "set ca_file" in send(tls.url, 69).log
    assert "set ca_file" in send(tls.url, 69, ca_file=authority.file).log
    send(tls.url, 0, ca_file=certificate)
    send.require_exact(local_kinesis)


def test_a_certificate_of_another_host_or_another_time_is_refused(authority, front, send):
    other = front(authority.certificate("elsewhere.example"))
    assert "certificate names another host" in send(other.url, 69, ca_file=authority.file).log
    for days in [(-30, -2), (2, 30)]:
        tls = front(authority.certificate(days=days))
        assert "look at this machine's clock" in send(tls.url, 69, ca_file=authority.file).log


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_2_is_spoken_and_nothing_older(authority, front, send, local_kinesis):
    old = front(authority.certificate(), versions=(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1))
    # It works for who takes it.
    context = ssl.create_default_context(cafile=authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    connection = http.client.HTTPSConnection("localhost", old.port, context=context, timeout=10)
    connection.request("POST", "/", b"{}")
    connection.getresponse().read()
    connection.close()
    assert old.versions == {"TLSv1.1"}
    run = send(old.url, 69, ca_file=authority.file)
    assert "Kinesis cannot be reached" in run.log and old.versions == {"TLSv1.1"}
    new = front(authority.certificate(), versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2))
    send(new.url, 0, ca_file=authority.file)
    assert new.versions == {"TLSv1.2"}
    send.require_exact(local_kinesis)


# Proxies


class Proxy(keys.Server):
    """An HTTP proxy that wants a password: whole URLs, and CONNECT."""

    def __init__(self, user="penstock", password="pa:ss/word"):
        self.authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.seen = []
        super().__init__()
        self._server.RequestHandlerClass.do_CONNECT = lambda handler: self._connect(handler)

    def answer(self, method, path, headers, body):
        self.seen.append(f"{method} {path}")
        if headers["Proxy-Authorization"] != self.authorization:
            return 407, {"Proxy-Authenticate": "Basic"}, b""
        host = path.removeprefix("http://").split("/")[0]
        connection = http.client.HTTPConnection(host, timeout=30)
        connection.request(method, "/", body, {name: headers[name] for name in ("Content-Type", "X-Amz-Target")})
        answer = connection.getresponse()
        return answer.status, {"Content-Type": answer.headers["Content-Type"]}, answer.read()

    def _connect(self, handler):
        self.seen.append(f"CONNECT {handler.path}")
        handler.close_connection = True
        if handler.headers["Proxy-Authorization"] != self.authorization:
            handler.send_response_only(407)
            handler.send_header("Proxy-Authenticate", "Basic")
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        # What is meant for Kinesis is none of the proxy's business.
        assert not any(name.lower().startswith(("x-amz", "authorization")) for name in handler.headers)
        host, port = handler.path.split(":")
        handler.send_response_only(200)
        handler.end_headers()
        with socket.create_connection((host, int(port))) as behind:
            pipe(handler.connection, behind)


@pytest.fixture
def proxy():
    proxy = Proxy()
    yield proxy
    proxy.stop()


PASSWORD = "pa%3Ass%2Fword"


def test_calls_go_through_the_proxy_with_its_password_which_no_log_shows(
    authority, front, send, proxy, local_kinesis
):
    tls = front(authority.certificate())
    url = proxy.url.replace("http://", "http://penstock:${PROXY_PASSWORD}@")
    env = environment(PROXY_PASSWORD=PASSWORD)
    run = send(tls.url, 0, env=env, proxy=url, ca_file=authority.file)
    assert proxy.seen and set(proxy.seen) == {f"CONNECT localhost:{tls.port}"}
    send.require_exact(local_kinesis)
    assert PASSWORD not in run.log and "pa:ss" not in run.log
    wrong = send(tls.url, 69, env=environment(PROXY_PASSWORD="wrong-one"), proxy=url, ca_file=authority.file)
    assert "407" in wrong.log and "wrong-one" not in wrong.log


def test_plain_http_goes_through_the_proxy_as_whole_urls(send, proxy, local_kinesis):
    url = proxy.url.replace("http://", f"http://penstock:{PASSWORD}@")
    send(local_kinesis.url, 0, proxy=url)
    assert set(proxy.seen) == {f"POST {local_kinesis.url}/"}
    send.require_exact(local_kinesis)


def test_the_environments_proxy_is_taken_as_curl_takes_it(authority, front, send, proxy, local_kinesis):
    tls = front(authority.certificate())
    url = proxy.url.replace("http://", f"http://penstock:{PASSWORD}@")
    send(tls.url, 0, env=environment(HTTPS_PROXY=url), ca_file=authority.file)
    assert set(proxy.seen) == {f"CONNECT localhost:{tls.port}"}
    send.require_exact(local_kinesis)
    proxy.seen.clear()
    send(tls.url, 0, env=environment(HTTPS_PROXY=url, NO_PROXY="example.com,localhost"), ca_file=authority.file)
    assert not proxy.seen


def test_servers_of_this_machine_are_asked_without_the_proxy(send):
    ring = keys.Ring()
    imds, container = keys.MetadataService(ring), keys.ContainerService(ring)
    dead = "http://127.0.0.1:1"
    try:
        # The embedded Kinesis, and the keys: the proxy of the environment would lead nowhere.
        for variables in (
            {"AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url},
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + "/"},
        ):
            env = environment(http_proxy=dead, HTTPS_PROXY=dead, ALL_PROXY=dead, **variables)
            del env["AWS_ACCESS_KEY_ID"]
            send("http://127.0.0.1:1", 69, env=env)
        send("embedded", 0, env=environment(http_proxy=dead, ALL_PROXY=dead))
    finally:
        imds.stop()
        container.stop()
    assert len(imds.seen) == 3 and len(container.seen) == 1
