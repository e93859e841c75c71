"""Servers that hand out AWS keys as the real ones do, and a gate before Kinesis that lets nobody in without a good one.

A `Ring` knows every key that was handed out. The metadata service (IMDSv2) and the container endpoint mint keys for it,
`TokenService` stands before moto's STS and notes those that it answers, and `Gate` verifies each signature with them.
"""

import collections
import contextlib
import dataclasses
import datetime
import email.utils
import hashlib
import hmac
import http.client
import http.server
import itertools
import json
import re
import threading
import time
import urllib.parse

import loopback
import wire


@dataclasses.dataclass
class Key:
    id: str
    secret: str
    token: str | None
    # Unix time.
    expires: float | None = None
    minted: float = dataclasses.field(default_factory=time.time)

    @property
    def expiration(self):
        return datetime.datetime.fromtimestamp(self.expires, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Ring:
    def __init__(self):
        self.keys = {}
        self._numbers = itertools.count(1)

    def mint(self, lifetime=None, token=True, name="KEY", ahead=0):
        number = next(self._numbers)
        token = f"token+/{number}=" + "x" * 300 if token else None
        # Whole seconds: what the Expiration says is what is meant.
        expires = None if lifetime is None else int(time.time() + ahead + lifetime + 0.999)
        return self.add(Key(f"{name}{number:04}", f"secret/{name}+{number}", token, expires))

    def add(self, key):
        self.keys[key.id] = key
        return key

    def secrets(self):
        return [secret for key in self.keys.values() for secret in (key.secret, key.token) if secret]


class Server:
    """Answers on loopback by `answer(method, path, headers, body)`: a status, headers and a body; None hangs up."""

    def __init__(self, port=0):
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            timeout = 60

            def handle_any(self):
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                answered = owner.answer(self.command, self.path, self.headers, body)
                if answered is None:
                    self.close_connection = True
                    return
                status, headers, body = answered
                self.send_response_only(status)
                headers = {"Date": email.utils.formatdate(time.time(), usegmt=True)} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = handle_any

            def log_message(self, *_):
                pass

        self._server = loopback.Listener(Handler, port)
        self.port, self.url = self._server.port, self._server.url

    def stop(self):
        self._server.stop()


def _json(value, status=200):
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


class MetadataService(Server):
    """IMDS: tokens by PUT, everything else by GET with a token; version 1 is answered as long as `has_v1`."""

    ROLE = "penstock-role"

    def __init__(self, ring, lifetime=3600, region="eu-north-1"):
        self.ring, self.lifetime, self.region = ring, lifetime, region
        # Seconds that its clock is ahead of ours.
        self.ahead = 0
        self.knows_v2 = True
        self.has_role = True
        # Bad answers to give before good ones.
        self.bad = []
        self.tokens = set()
        self.seen = []
        super().__init__()

    def forget_tokens(self):
        self.tokens.clear()

    def answer(self, method, path, headers, body):
        token = headers["X-aws-ec2-metadata-token"]
        self.seen.append((method, path, "token" if token else "bare"))
        if self.bad:
            return self.bad.pop(0)
        if method == "PUT":
            if not self.knows_v2 or path != "/latest/api/token":
                return 404, {}, b""
            # A proxy between adds this, and the service refuses it.
            if headers["X-Forwarded-For"]:
                return 403, {}, b""
            if not 1 <= int(headers["X-aws-ec2-metadata-token-ttl-seconds"] or 0) <= 21600:
                return 400, {}, b""
            self.tokens.add(token := f"imds-{len(self.seen)}==")
            return 200, {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": "21600"}, token.encode()
        if token not in self.tokens and (token or self.knows_v2):
            return 401, {}, b""
        roles = "/latest/meta-data/iam/security-credentials/"
        if path == "/latest/meta-data/placement/region":
            return 200, {}, self.region.encode()
        if path == roles and self.has_role:
            return 200, {}, self.ROLE.encode()
        if path == roles + self.ROLE and self.has_role:
            key = self.ring.mint(self.lifetime, ahead=self.ahead)
            status, headers, body = _json(
                {
                    "Code": "Success", "LastUpdated": "2026-11-21T08:00:00Z", "Type": "AWS-HMAC",
                    "AccessKeyId": key.id, "SecretAccessKey": key.secret, "Token": key.token,
                    "Expiration": key.expiration,
                }
            )
            return status, headers | {"Date": email.utils.formatdate(time.time() + self.ahead, usegmt=True)}, body
        return 404, {}, b""


class ContainerService(Server):
    """The container endpoint of ECS and EKS: a key for whoever knows the authorization token."""

    def __init__(self, ring, lifetime=3600, authorization=None, port=0):
        self.ring, self.lifetime, self.authorization = ring, lifetime, authorization
        self.is_ill = False
        self.seen = []
        super().__init__(port)

    def answer(self, method, path, headers, body):
        self.seen.append((method, path))
        if self.is_ill:
            return _json({"code": "InternalServerError", "message": "ill"}, 500)
        if headers["Authorization"] != self.authorization:
            return _json({"code": "AccessDenied", "message": "no such token"}, 401)
        key = self.ring.mint(self.lifetime)
        return _json(
            {
                "RoleArn": "arn:aws:iam::123456789012:role/task", "AccessKeyId": key.id, "SecretAccessKey": key.secret,
                "Token": key.token, "Expiration": key.expiration,
            }
        )


class TokenService(Server):
    """Stands before moto's STS: keeps what was asked, and puts the keys it answers on the ring."""

    def __init__(self, ring, url):
        self.ring = ring
        self._behind = urllib.parse.urlsplit(url).netloc
        self.asked = []
        self.by = []
        # Seconds that its clock is ahead of ours; signatures are checked against it.
        self.ahead = 0
        super().__init__()

    def answer(self, method, path, headers, body):
        form = dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True))
        self.asked.append(form)
        now = time.time() + self.ahead
        dated = {"Date": email.utils.formatdate(now, usegmt=True), "Content-Type": "text/xml"}
        if form["Action"] == "AssumeRole":
            refusal = verify(self.ring, "sts", method, path, headers, body, now)
            if refusal:
                code = "SignatureDoesNotMatch" if refusal[0] == "InvalidSignatureException" else refusal[0]
                text = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{refusal[1]}</Message>"
                return 403, dated, (text + "</Error></ErrorResponse>").encode()
            self.by.append(_id_of(headers))
        behind = http.client.HTTPConnection(self._behind, timeout=30)
        with contextlib.closing(behind):
            behind.request("POST", "/", body, {name: headers[name] for name in ("Content-Type", "Authorization") if headers[name]})
            answer = behind.getresponse()
            text = answer.read()
        found = {
            name: re.search(f"<{name}>([^<]+)<", text.decode())
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
        }
        if all(found.values()):
            self.ring.add(Key(*(found[name][1] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))))
        return answer.status, dated, text


def _id_of(headers):
    return re.search(r"Credential=([^/]+)/", headers["Authorization"] or "Credential=none/")[1]


def verify(ring, service, method, path, headers, body, now):
    """Why a request is refused, as a code and a message; None for a good one. Written from the IAM user guide."""
    authorization = headers["Authorization"] or ""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/([a-z]+)/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        authorization,
    )
    if not found:
        return "IncompleteSignatureException", f"cannot read {authorization!r}"
    identity, day, region, scope, names, signature = found.groups()
    key = ring.keys.get(identity)
    if key is None or headers["X-Amz-Security-Token"] != key.token:
        return "UnrecognizedClientException", "The security token included in the request is invalid."
    date = headers["X-Amz-Date"]
    at = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc).timestamp()
    if at < now - 300:
        return "InvalidSignatureException", f"Signature expired: {date} is now earlier than it may be (now - 5 min.)"
    if at > now + 300:
        return "InvalidSignatureException", f"Signature not yet current: {date} is still later than it may be"
    if key.expires is not None and now >= key.expires:
        return "ExpiredTokenException", "The security token included in the request is expired"
    lines = [f"{name}:{headers[name].strip()}\n" for name in names.split(";")]
    canonical = f"{method}\n{path}\n\n{''.join(lines)}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{date}\n{day}/{region}/{scope}/aws4_request\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    secret = f"AWS4{key.secret}".encode()
    for part in (day, region, scope, "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    if scope != service or hmac.digest(secret, text.encode(), "sha256").hex() != signature:
        return "InvalidSignatureException", "The request signature we calculated does not match"
    return None


class Gate(Server):
    """Kinesis behind a gate: passes on what is signed with a good key, and counts the keys and the refusals."""

    def __init__(self, ring, url):
        self.ring = ring
        self.ahead = 0
        self.used = collections.Counter()
        self.refused = collections.Counter()
        self._behind = urllib.parse.urlsplit(url).netloc
        self._local = threading.local()
        super().__init__()

    def answer(self, method, path, headers, body):
        now = time.time() + self.ahead
        dated = {"Date": email.utils.formatdate(now, usegmt=True)}
        refusal = verify(self.ring, "kinesis", method, path, headers, body, now)
        if refusal:
            self.refused[refusal[0]] += 1
            request = wire.Request(0, 0, method, path, headers.items(), body, now)
            answer = wire.error(request, 400, *refusal)
            return 400, dated | answer.headers, answer.body
        self.used[_id_of(headers)] += 1
        if not hasattr(self._local, "behind"):
            self._local.behind = http.client.HTTPConnection(self._behind, timeout=30)
        kept = {name: headers[name] for name in ("Content-Type", "X-Amz-Target")}
        self._local.behind.request("POST", "/", body, kept)
        answer = self._local.behind.getresponse()
        return answer.status, dated | {"Content-Type": answer.headers["Content-Type"]}, answer.read()
