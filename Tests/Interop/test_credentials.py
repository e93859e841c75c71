"""Every source of credentials against a server of its protocol, through the real binary: a gate before the embedded Kinesis
verifies each signature, with the key that the source has handed out and no other."""

import json
import os
import signal
import socket
import subprocess
import threading
import time

import keys
import oracle
import pytest
from conftest import BINARY, environment, until

ROLE = "arn:aws:iam::123456789012:role/ingest"
NOBODY = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}


@pytest.fixture
def ring():
    return keys.Ring()


@pytest.fixture
def gate(ring, local_kinesis):
    gate = keys.Gate(ring, local_kinesis.url)
    yield gate
    gate.stop()


@pytest.fixture
def token_service(ring, moto_server):
    service = keys.TokenService(ring, moto_server.url)
    yield service
    service.stop()


@pytest.fixture
def imds(ring):
    service = keys.MetadataService(ring)
    yield service
    service.stop()


@pytest.fixture
def container(ring):
    service = keys.ContainerService(ring)
    yield service
    service.stop()


@pytest.fixture
def silent():
    """A port where connections are taken by the kernel and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def deaf():
    """A port whose queue is full: the kernel drops what knocks there, as if no such host were in the network."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def without_keys(**changes):
    """An environment without keys and without a metadata service, but for `changes`."""
    variables = {name: value for name, value in environment().items() if name not in NOBODY}
    variables |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}
    return {name: value for name, value in (variables | changes).items() if value is not None}


class Delivery:
    """An agent behind the gate, with a thousand lines to deliver."""

    def __init__(self, make_agent, logs, gate, stream):
        self.gate, self.stream, self.source, self.logs = gate, stream, oracle.Source(1), logs
        self.source.write(logs / "app.log", 1_000)
        self.make = lambda **options: make_agent(logs / "*.log", gate.url, stream, **options)

    def once(self, env, *, code=0, timeout=30, **output):
        agent = self.make(agent={"log_level": "trace", "shutdown_timeout": "3s"}, **output)
        run = agent.once(env=env, timeout=timeout)
        assert run.process.returncode == code, run.log
        self.nothing_secret_in(run.log)
        return run

    def nothing_secret_in(self, log):
        for secret in self.gate.ring.secrets():
            assert secret not in log

    def end(self, agent, run, env):
        """Stops it; what its file and its spool still hold is delivered by another run."""
        assert run.terminate() == 0
        self.nothing_secret_in(run.log)
        assert agent.once(env=env).process.returncode == 0

    def require_exact(self, kinesis):
        oracle.verify(kinesis.url, self.stream, [self.source]).require_exact()


@pytest.fixture
def delivery(make_agent, logs, gate, stream):
    return Delivery(make_agent, logs, gate, stream)


@pytest.fixture
def aws_files(tmp_path):
    """Writes the shared files; returns what names them in the environment."""

    def write(config="", credentials=""):
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(credentials)
        return {
            "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        }

    return write


def section(name, key):
    return f"[{name}]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n" + (
        f"aws_session_token = {key.token}\n" if key.token else ""
    )


# Keys that are simply there


@pytest.mark.parametrize("token", [True, False], ids=["temporary", "lasting"])
def test_keys_of_the_environment_come_before_all_others(ring, gate, delivery, local_kinesis, imds, aws_files, token):
    key, other = ring.mint(token=token), ring.mint()
    delivery.once(
        without_keys(
            AWS_ACCESS_KEY_ID=key.id, AWS_SECRET_ACCESS_KEY=key.secret, AWS_SESSION_TOKEN=key.token,
            AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url,
            **aws_files(credentials=section("default", other)),
        )
    )
    assert set(gate.used) == {key.id} and not imds.seen
    delivery.require_exact(local_kinesis)


def test_a_profile_of_the_configuration_comes_before_the_environment(ring, gate, delivery, local_kinesis, aws_files):
    key, other = ring.mint(token=False), ring.mint(token=False)
    files = aws_files(credentials=section("default", other) + section("ingest", key))
    delivery.once(
        without_keys(AWS_ACCESS_KEY_ID=other.id, AWS_SECRET_ACCESS_KEY=other.secret, **files), profile="ingest"
    )
    assert set(gate.used) == {key.id}
    delivery.require_exact(local_kinesis)


def test_a_profile_that_is_not_there_ends_the_search(ring, gate, delivery, imds, aws_files):
    files = aws_files(credentials=section("default", ring.mint()))
    run = delivery.once(
        without_keys(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url, **files),
        profile="ingest", code=77,
    )
    assert "[ingest] is not in" in run.log and not gate.used and not imds.seen


# credential_process


def test_a_credential_process_is_run_by_the_shell_and_its_json_read(ring, gate, delivery, local_kinesis, aws_files, tmp_path):
    key = ring.mint(3600)
    printed = {
        "Version": 1, "AccessKeyId": key.id, "SecretAccessKey": key.secret, "SessionToken": key.token,
        "Expiration": key.expiration.replace("Z", "+00:00"),
    }
    answer = tmp_path / "an answer.json"
    answer.write_text(json.dumps(printed))
    files = aws_files(config=f"[profile p]\ncredential_process = cat \"{answer}\" # not a comment\n")
    answer.with_name("# not").write_text("")
    delivery.once(without_keys(AWS_PROFILE="p", **files))
    assert set(gate.used) == {key.id}
    delivery.require_exact(local_kinesis)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo secret-on-stderr >&2; exit 3", "it ended with code 3"),
        ("echo no", "no JSON"),
        ("echo '{\"Version\": 2}'", '\\"Version\\": 1'),
        ("echo '{\"Version\": 1, \"AccessKeyId\": \"A\"}'", "no AccessKeyId and SecretAccessKey"),
        (
            "echo '{\"Version\": 1, \"AccessKeyId\": \"A\", \"SecretAccessKey\": \"secret-of-it\", "
            "\"Expiration\": \"2020-01-01T00:00:00Z\"}'",
            "have ended at 2020-01-01T00:00:00Z",
        ),
        ("yes", "prints more than"),
    ],
    ids=["code", "text", "version", "fields", "expired", "endless"],
)
def test_a_credential_process_that_fails_is_told_with_its_reason(delivery, gate, aws_files, command, words):
    files = aws_files(config=f"[default]\ncredential_process = {command}\n")
    run = delivery.once(without_keys(**files), code=77)
    assert words in run.log.replace('\\\\"', '\\"') and not gate.used, run.log
    assert "secret-o" not in run.log


# Roles


def test_a_profile_takes_on_its_role_by_another_profiles_keys(
    ring, gate, delivery, local_kinesis, token_service, aws_files
):
    key = ring.mint(token=False, name="BASE")
    files = aws_files(
        config=(
            f"[profile ingest]\nrole_arn = {ROLE}\nsource_profile = middle\nexternal_id = an id & more\n"
            "role_session_name = night-shift\nduration_seconds = 1800\n"
            f"[profile middle]\nrole_arn = {ROLE}-middle\nsource_profile = base\n"
        ),
        credentials=section("base", key),
    )
    delivery.once(without_keys(AWS_ENDPOINT_URL_STS=token_service.url, **files), profile="ingest")
    middle, ingest = token_service.asked
    assert (middle["RoleArn"], ingest["RoleArn"]) == (f"{ROLE}-middle", ROLE)
    assert token_service.by[0] == key.id and token_service.by[1] not in (key.id, *gate.used)
    assert (ingest["ExternalId"], ingest["RoleSessionName"]) == ("an id & more", "night-shift")
    assert ingest["DurationSeconds"] == "1800" and middle["RoleSessionName"].startswith("penstock-")
    assert len(gate.used) == 1 and key.id not in gate.used
    delivery.require_exact(local_kinesis)


@pytest.mark.parametrize("base", ["Environment", "EcsContainer", "Ec2InstanceMetadata"])
def test_a_profile_takes_on_its_role_by_a_credential_source(
    ring, gate, delivery, local_kinesis, token_service, aws_files, imds, container, base
):
    key = ring.mint(token=False, name="ENV")
    files = aws_files(config=f"[profile ingest]\nrole_arn = {ROLE}\ncredential_source = {base}\n")
    delivery.once(
        without_keys(
            AWS_ENDPOINT_URL_STS=token_service.url, AWS_ACCESS_KEY_ID=key.id, AWS_SECRET_ACCESS_KEY=key.secret,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=container.url + "/role", AWS_EC2_METADATA_DISABLED=None,
            AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url, **files,
        ),
        profile="ingest",
    )
    assert (bool(container.seen), bool(imds.seen)) == (base == "EcsContainer", base == "Ec2InstanceMetadata")
    assert (token_service.by == [key.id]) == (base == "Environment")
    delivery.require_exact(local_kinesis)


def test_the_configurations_role_is_taken_on_with_whatever_the_chain_gives(
    ring, gate, delivery, local_kinesis, token_service, imds
):
    delivery.once(
        without_keys(
            AWS_ENDPOINT_URL_STS=token_service.url, AWS_EC2_METADATA_DISABLED=None,
            AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url,
        ),
        role_arn=ROLE, external_id="4711",
    )
    assert [(form["RoleArn"], form["ExternalId"]) for form in token_service.asked] == [(ROLE, "4711")]
    assert len(gate.used) == 1 and not set(gate.used) & set(token_service.by)
    delivery.require_exact(local_kinesis)


# moto's Expiration is an hour ahead of the right clock: by this one it must not have come yet.
@pytest.mark.parametrize("ahead", [600, -3600, -50 * 365 * 86400], ids=["late", "early", "in the future"])
def test_sts_corrects_a_clock_that_is_off(ring, delivery, local_kinesis, token_service, gate, ahead):
    key = ring.mint(token=False)
    token_service.ahead = gate.ahead = ahead
    delivery.once(
        without_keys(
            AWS_ENDPOINT_URL_STS=token_service.url, AWS_ACCESS_KEY_ID=key.id, AWS_SECRET_ACCESS_KEY=key.secret
        ),
        role_arn=ROLE,
    )
    assert token_service.by == [key.id] and len(token_service.asked) == 2
    delivery.require_exact(local_kinesis)


def test_a_web_identity_takes_on_the_role_without_keys(
    ring, gate, delivery, local_kinesis, token_service, tmp_path, aws_files
):
    token = tmp_path / "token"
    token.write_text("eyJhbGciOiJSUzI1NiJ9.e30.c2ln\n")
    variables = {
        "AWS_ENDPOINT_URL_STS": token_service.url, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": ROLE,
    }
    delivery.once(without_keys(**variables, **aws_files(credentials=section("default", ring.mint()))))
    assert token_service.asked[0]["Action"] == "AssumeRoleWithWebIdentity"
    assert token_service.asked[0]["WebIdentityToken"] == token.read_text().strip()
    assert len(gate.used) == 1 and token_service.by == []
    delivery.require_exact(local_kinesis)
    # And by a profile, under its own names.
    files = aws_files(
        config=f"[profile web]\nrole_arn = {ROLE}\nweb_identity_token_file = {token}\nrole_session_name = pod\n"
    )
    delivery.once(without_keys(AWS_ENDPOINT_URL_STS=token_service.url, AWS_PROFILE="web", **files))
    assert token_service.asked[-1]["RoleSessionName"] == "pod" and len(gate.used) == 2


def test_a_web_identity_that_fails_is_not_replaced_by_somebody_else(ring, gate, delivery, aws_files, tmp_path):
    files = aws_files(credentials=section("default", ring.mint()))
    run = delivery.once(
        without_keys(AWS_WEB_IDENTITY_TOKEN_FILE=str(tmp_path / "none"), AWS_ROLE_ARN=ROLE, **files), code=77
    )
    assert "environment: AWS_ACCESS_KEY_ID is not set; web identity: the web identity token:" in run.log
    assert not gate.used


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (f"role_arn = {ROLE}\nsource_profile = b\n[profile b]\nrole_arn = x\nsource_profile = p", "in a circle: p, b, p"),
        (f"role_arn = {ROLE}\nsource_profile = none", "[none] is not in"),
        (f"role_arn = {ROLE}", "has a role_arn without"),
        (f"role_arn = {ROLE}\ncredential_source = Moon", "none of Environment"),
        (f"role_arn = {ROLE}\nsource_profile = p\nmfa_serial = 1", "mfa_serial"),
        (f"role_arn = {ROLE}\nsource_profile = p", "is its own source, without keys"),
        ("sso_session = s\nsso_account_id = 1", "aws configure export-credentials --profile p"),
        ("region = eu-west-1", "has no keys"),
    ],
    ids=["circle", "nobody", "alone", "moon", "mfa", "itself", "sso", "empty"],
)
def test_a_profile_that_cannot_be_used_says_what_to_do(delivery, gate, aws_files, profile, words):
    run = delivery.once(without_keys(**aws_files(config=f"[profile p]\n{profile}\n")), profile="p", code=77)
    assert words in run.log and not gate.used, run.log


def test_a_role_that_sts_refuses_is_told_with_its_words(ring, gate, delivery, token_service):
    unknown = keys.Key("AKIANOBODY", "nothing", None)
    run = delivery.once(
        without_keys(
            AWS_ENDPOINT_URL_STS=token_service.url, AWS_ACCESS_KEY_ID=unknown.id, AWS_SECRET_ACCESS_KEY=unknown.secret
        ),
        role_arn=ROLE, code=77,
    )
    assert f"refuses {ROLE}: UnrecognizedClientException: The security token" in run.log and not gate.used


# The container endpoint


@pytest.mark.parametrize("by_file", [True, False], ids=["token file", "token"])
def test_a_container_asks_its_endpoint_with_its_token(ring, gate, delivery, local_kinesis, container, tmp_path, by_file):
    container.authorization = "Bearer of-this-pod"
    file = tmp_path / "authorization"
    file.write_text(container.authorization)
    token = (
        {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file), "AWS_CONTAINER_AUTHORIZATION_TOKEN": "an older one"}
        if by_file else {"AWS_CONTAINER_AUTHORIZATION_TOKEN": container.authorization}
    )
    delivery.once(without_keys(AWS_CONTAINER_CREDENTIALS_FULL_URI=container.url + "/v2/credentials?id=1", **token))
    assert container.seen == [("GET", "/v2/credentials?id=1")] and len(gate.used) == 1
    delivery.require_exact(local_kinesis)


def test_a_container_endpoint_that_fails_is_asked_three_times_and_told(delivery, gate, container, imds):
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": container.url + "/", "AWS_EC2_METADATA_DISABLED": None,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url,
    }
    container.is_ill = True
    run = delivery.once(without_keys(**variables), code=77)
    assert len(container.seen) == 3 and "container: 127.0.0.1: HTTP 500" in run.log
    container.is_ill, container.authorization = False, "another"
    run = delivery.once(without_keys(**variables), code=77)
    assert len(container.seen) == 4 and "no such token" in run.log
    assert not imds.seen and not gate.used


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/", "http://169.254.170.3/", "http://127.0.0.1@10.0.0.1/", "http://127.0.0.1.example/", "ftp://127.0.0.1/"],
)
def test_a_container_endpoint_elsewhere_in_clear_text_is_not_asked(delivery, gate, url):
    run = delivery.once(without_keys(AWS_CONTAINER_CREDENTIALS_FULL_URI=url), code=77)
    assert "must be https, or http to this machine" in run.log
    assert run.seconds < 2


# The metadata service


def test_an_instance_asks_for_a_token_first_and_never_without_one(ring, gate, delivery, local_kinesis, imds):
    delivery.once(without_keys(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url + "/"))
    roles = "/latest/meta-data/iam/security-credentials/"
    assert imds.seen == [
        ("PUT", "/latest/api/token", "bare"), ("GET", roles, "token"), ("GET", roles + imds.ROLE, "token"),
    ]
    assert len(gate.used) == 1
    delivery.require_exact(local_kinesis)


def test_a_service_without_version_2_is_not_asked_by_version_1(delivery, gate, imds):
    imds.knows_v2 = False
    run = delivery.once(
        without_keys(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url), code=77
    )
    assert "gives no token of IMDSv2: HTTP 404" in run.log
    assert {what[0] for what in imds.seen} == {"PUT"} and not gate.used


def test_what_the_service_forgets_or_fails_at_is_asked_again(ring, gate, delivery, local_kinesis, imds):
    # The token comes, is unknown a moment later, and then the service is overloaded.
    token = (200, {}, b"worthless==")
    imds.bad = [(503, {}, b""), token]
    delivery.once(without_keys(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url))
    assert [what[0] for what in imds.seen] == ["PUT", "PUT", "GET", "PUT", "GET", "GET"]
    assert len(gate.used) == 1
    delivery.require_exact(local_kinesis)


def test_an_instance_without_a_role_and_a_service_switched_off_are_told(delivery, gate, imds):
    imds.has_role = False
    variables = {"AWS_EC2_METADATA_DISABLED": None, "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.url}
    run = delivery.once(without_keys(**variables), code=77)
    for words in [
        "environment: AWS_ACCESS_KEY_ID is not set", "web identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set",
        "profile default: [default] is not in /nonexistent/.aws/credentials",
        "container: AWS_CONTAINER_CREDENTIALS_FULL_URI and _RELATIVE_URI are not set",
        "instance metadata: the instance has no role (HTTP 404)",
    ]:
        assert words in run.log, run.log
    asked = len(imds.seen)
    run = delivery.once(without_keys(AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url), code=77)
    assert "AWS_EC2_METADATA_DISABLED is true" in run.log and len(imds.seen) == asked


@pytest.mark.parametrize("how", ["connects to nobody", "gets no answer", "is refused"])
def test_a_service_that_cannot_be_reached_costs_two_seconds_at_most(delivery, silent, deaf, figure, how):
    # A hop limit of 1 keeps the token's answer from a bridged container: it connects, and hears nothing.
    url = {"connects to nobody": deaf, "gets no answer": silent, "is refused": "http://127.0.0.1:1"}[how]
    variables = {"AWS_EC2_METADATA_DISABLED": None, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url}
    run = delivery.once(without_keys(**variables), code=77)
    assert "instance metadata: " in run.log and run.seconds < 2, run.log
    # Region and keys together, whoever of them asks.
    delivery_region = delivery.make(region=None)
    delivery_region.output["endpoint"] = ""
    refused = delivery_region.once(env=without_keys(AWS_REGION=None, **variables), timeout=10)
    assert refused.process.returncode == 78 and "needs a region" in refused.log
    assert refused.seconds < 2
    figure(f"keys {run.seconds:.2f} s, region {refused.seconds:.2f} s")


# The region


def test_the_region_comes_from_the_key_the_environment_the_profile_and_the_instance(
    penstock, tmp_path, aws_files, imds
):
    config = tmp_path / "penstock.toml"
    files = aws_files(config="[default]\nregion = eu-central-1 # here\n[profile north]\nregion = eu-north-1\n")
    imds.region = "ap-south-1"
    base = without_keys(
        AWS_REGION=None, AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url
    )

    def region(output="", **variables):
        config.write_text(
            '[inputs.a]\ntype = "file"\npaths = ["/x/*.log"]\n[outputs.o]\ntype = "kinesis"\nstream = "s"\n' + output
        )
        result = penstock("check", "--config", config, env=base | variables)
        assert result.returncode == 0, result.stderr
        return result.stdout.decode().split("https://kinesis.")[1].split(".")[0]

    assert region('region = "sa-east-1"\n', AWS_REGION="us-west-2", **files) == "sa-east-1"
    assert region(AWS_REGION="us-west-2", AWS_DEFAULT_REGION="us-west-1", **files) == "us-west-2"
    assert region(AWS_REGION="", AWS_DEFAULT_REGION="us-west-1", **files) == "us-west-1"
    assert region('profile = "north"\n', **files) == "eu-north-1"
    assert region(**files) == "eu-central-1"
    assert not imds.seen
    assert region() == "ap-south-1"
    assert imds.seen[-1] == ("GET", "/latest/meta-data/placement/region", "token")


# Time goes by


def threads(run):
    names = set()
    for task in os.listdir(f"/proc/{run.pid}/task"):
        with open(f"/proc/{run.pid}/task/{task}/comm", encoding="ascii") as file:
            names.add(file.read().strip())
    return names


class Writer:
    """Writes lines at an even pace until it is stopped."""

    def __init__(self, source, path, rate):
        self._source, self._path, self._rate = source, path, rate
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stopped.wait(0.02):
            self._source.write(self._path, self._rate // 50)

    def stop(self):
        self._stopped.set()
        self._thread.join()


def test_keys_are_renewed_behind_a_busy_agent_that_notices_nothing(ring, gate, delivery, local_kinesis, container, figure):
    # Short for a key, and long enough for a call to reach a server that shares its processor.
    container.lifetime = 7
    agent = delivery.make(agent={"log_level": "debug"})
    env = without_keys(AWS_CONTAINER_CREDENTIALS_FULL_URI=container.url + "/")
    run = agent.start(env=env)
    writer = Writer(delivery.source, delivery.logs / "app.log", 40_000)
    try:
        until(lambda: len(gate.used) >= 4, 40, "four keys to be used")
        assert "penstock-keys" in threads(run)
    finally:
        writer.stop()
    delivery.end(agent, run, env)
    minted = [key for key in ring.keys.values() if key.id in gate.used]
    ahead = min(old.expires - new.minted for old, new in zip(minted, minted[1:]))
    assert ahead > 0.5, "they were renewed when they had ended"
    figure(f"{len(gate.used)} keys for {delivery.source.written} lines, {sum(gate.used.values())} calls, 0 refused")
    assert not gate.refused and " error " not in run.log and " warning " not in run.log, run.log
    delivery.require_exact(local_kinesis)


def test_keys_that_cannot_be_renewed_serve_to_their_end_and_then_the_advice_names_the_reason(
    ring, gate, delivery, local_kinesis, container
):
    container.lifetime = 6
    agent = delivery.make()
    env = without_keys(AWS_CONTAINER_CREDENTIALS_FULL_URI=container.url + "/")
    run = agent.start(env=env)
    writer = Writer(delivery.source, delivery.logs / "app.log", 5_000)
    try:
        until(lambda: gate.used, 10, "the first call")
        container.is_ill = True
        end = max(key.expires for key in ring.keys.values())
        run.wait_for("cannot be renewed, the old ones hold on", timeout=10)
        assert time.time() < end
        line = run.wait_for("there are no AWS credentials", timeout=10)
        assert time.time() > end - 1 and "container: 127.0.0.1: HTTP 500" in line
        assert not gate.refused
        container.is_ill = False
        used = len(gate.used)
        until(lambda: len(gate.used) > used, 60, "new keys")
        run.wait_for("Kinesis answers again", timeout=10)
    finally:
        writer.stop()
    delivery.end(agent, run, env)
    delivery.require_exact(local_kinesis)


def test_rotated_keys_of_a_file_are_read_again_when_the_old_ones_are_refused(
    ring, gate, delivery, local_kinesis, aws_files, figure
):
    old, new = ring.mint(token=False), ring.mint(token=False)
    agent = delivery.make()
    env = without_keys(**aws_files(credentials=section("default", old)))
    run = agent.start(env=env)
    writer = Writer(delivery.source, delivery.logs / "app.log", 20_000)
    try:
        until(lambda: gate.used[old.id] > 20, 20, "calls with the old key")
        # Nothing to renew, no thread for it.
        assert "penstock-keys" not in threads(run)
        aws_files(credentials=section("default", new))
        del ring.keys[old.id]
        until(lambda: gate.used[new.id] > 20, 20, "calls with the new key")
    finally:
        writer.stop()
    delivery.end(agent, run, env)
    refused = gate.refused["UnrecognizedClientException"]
    figure(f"{refused} calls refused between the two keys")
    # At most what was in flight; none of it is worth a line in the log.
    assert 1 <= refused <= 24 and " error " not in run.log, run.log
    delivery.require_exact(local_kinesis)


def test_a_reload_takes_on_another_profile(ring, gate, delivery, local_kinesis, aws_files):
    first, second = ring.mint(token=False), ring.mint(token=False)
    env = without_keys(**aws_files(credentials=section("first", first) + section("second", second)))
    agent = delivery.make(profile="first")
    run = agent.start(env=env)
    until(lambda: gate.used[first.id], 10, "a call with the first key")
    agent.output["profile"] = "second"
    agent.write_config()
    run.process.send_signal(signal.SIGHUP)
    run.wait_for("another configuration is taken on")
    delivery.source.write(delivery.logs / "app.log", 1_000)
    until(lambda: gate.used[second.id], 10, "a call with the second key")
    delivery.end(agent, run, env)
    delivery.require_exact(local_kinesis)


def test_keys_that_stay_refused_are_looked_for_once_and_then_patiently(ring, gate, delivery, aws_files):
    wrong = keys.Key("KEYWRONG", "not-this", None)
    files = aws_files(credentials=section("default", wrong))
    ring.add(keys.Key(wrong.id, "but-this", None))
    run = delivery.once(without_keys(**files), code=77)
    assert "the AWS credentials are not accepted" in run.log
    # Each of the two that ask for the shards, the first key and the one that was read again.
    assert gate.refused["InvalidSignatureException"] == 2


def test_a_stop_does_not_wait_for_a_source_that_hangs(delivery, aws_files, tmp_path):
    marker = tmp_path / "process"
    files = aws_files(config=f"[default]\ncredential_process = echo $$ > {marker}; sleep 55\n")
    agent = delivery.make(agent={"shutdown_timeout": "500ms"})
    run = agent.start(env=without_keys(**files))
    process = int(until(lambda: marker.exists() and marker.read_text().strip(), 10, "the process"))
    began = time.monotonic()
    run.terminate()
    assert time.monotonic() - began < 3
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


# Processors


def test_a_processor_without_avx_512_and_sha_instructions_signs_calls_that_are_accepted(
    ring, gate, delivery, local_kinesis, tmp_path
):
    """Valgrind's has neither."""
    key = ring.mint(token=False)
    # It does not understand what the compiler says for debuggers.
    binary = tmp_path / "penstock"
    subprocess.run(["strip", "--strip-debug", "-o", binary, BINARY], check=True)
    agent = delivery.make(agent={"log_level": "debug"})
    agent.write_config()
    env = without_keys(AWS_ACCESS_KEY_ID=key.id, AWS_SECRET_ACCESS_KEY=key.secret)
    run = subprocess.run(
        ["valgrind", "--tool=none", "--quiet", binary, "run", "--once", "--config", agent.config],
        env=env, timeout=90, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    assert run.returncode == 0 and not gate.refused, run.stdout
    delivery.require_exact(local_kinesis)


# Clocks


@pytest.mark.parametrize(
    "ahead", [3600, -3600, 56 * 365 * 86400, -50 * 365 * 86400], ids=["late", "early", "in 1970", "in the future"]
)
def test_a_clock_that_is_off_is_corrected_by_the_services_date(ring, gate, delivery, local_kinesis, ahead):
    key = ring.mint(token=False)
    gate.ahead = ahead
    run = delivery.once(without_keys(AWS_ACCESS_KEY_ID=key.id, AWS_SECRET_ACCESS_KEY=key.secret))
    # The very first call told the time; it was made again at once.
    assert gate.refused == {"InvalidSignatureException": 1} and " error " not in run.log, run.log
    delivery.require_exact(local_kinesis)


@pytest.mark.parametrize("ahead", [56 * 365 * 86400, -50 * 365 * 86400], ids=["in 1970", "in the future"])
def test_a_lifetime_is_counted_by_the_clock_of_who_grants_it(ring, gate, delivery, local_kinesis, imds, ahead):
    imds.ahead = gate.ahead = ahead
    # New ones come some 4 s ahead of the end: by so much this machine may stand still.
    imds.lifetime = 16
    env = without_keys(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=imds.url)
    agent = delivery.make()
    run = agent.start(env=env)
    writer = Writer(delivery.source, delivery.logs / "app.log", 5_000)
    try:
        until(lambda: len(gate.used) >= 2, 30, "two keys to be used")
    finally:
        writer.stop()
    assert gate.refused == {"InvalidSignatureException": 1} and " error " not in run.log, run.log
    delivery.end(agent, run, env)
    delivery.require_exact(local_kinesis)


def test_a_clock_that_jumps_under_load_loses_nothing(ring, gate, delivery, local_kinesis):
    key = ring.mint(token=False)
    agent = delivery.make()
    env = without_keys(AWS_ACCESS_KEY_ID=key.id, AWS_SECRET_ACCESS_KEY=key.secret)
    run = agent.start(env=env)
    writer = Writer(delivery.source, delivery.logs / "app.log", 20_000)
    try:
        for ahead in (7200, 0, -86400, 0):
            gate.ahead = ahead
            used = gate.used[key.id]
            until(lambda: gate.used[key.id] > used + 10, 20, "calls by the new time")
    finally:
        writer.stop()
    delivery.end(agent, run, env)
    assert 4 <= gate.refused["InvalidSignatureException"] <= 4 * 24 and " error " not in run.log, run.log
    delivery.require_exact(local_kinesis)


def test_the_embedded_kinesis_takes_what_a_profile_signs_and_nothing_else(start_local, make_agent, logs, aws_files):
    server = start_local("logs:2", "--access-key=AKIAPEN:s3cr3t/+")
    source = oracle.Source(1)
    source.write(logs / "app.log", 1_000)
    agent = make_agent(logs / "*.log", server.url, "logs", agent={"shutdown_timeout": "2s"})
    key = keys.Key("AKIAPEN", "wrong", None)
    assert agent.once(env=without_keys(**aws_files(credentials=section("default", key)))).process.returncode == 77
    key.secret = "s3cr3t/+"
    env = without_keys(**aws_files(credentials=section("default", key)))
    assert agent.once(env=env).process.returncode == 0
    kinesis = oracle.client(server.url, aws_access_key_id=key.id, aws_secret_access_key=key.secret)
    lines = []
    for shard in oracle.shards_of(kinesis, "logs"):
        lines += [record.data for record in oracle.ShardReader(kinesis, "logs", shard).user_records()]
    assert sorted(oracle.parse(line)[1] for line in lines) == list(range(1_000))
