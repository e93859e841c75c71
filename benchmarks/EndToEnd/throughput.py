"""Files and streams → Kinesis at full speed, in several forms, in turn with the C floor over the same bytes."""

import socket
import subprocess
import time

import inputs
from measure import Group, Ratio, Sample, timed
from processes import Agent, Kinesis, Sink, cpu, file_input, least, memory, quiet, until

LINES = 2_000_000
# What is bound to a figure for a GB is measured over one, start and end included.
GB = 10**9
FLOOR, PLAIN, LEAST = "C floor, CBOR", "CBOR, 4 shards", "C floor, a GB"


def certificate(folder):
    """A certificate for loopback, and its key."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measured(folder, pattern, url, output, size, lines):
    """An agent that ships files to their end."""
    (cpu, peak), seconds = timed(Agent(folder, {"app": file_input(pattern)}, url, f"rate_limit = 0\n{output}").once)
    return Sample(cpu, size, lines, seconds, peak)


def floor(programs, file, url, lines):
    cpu, seconds = timed(lambda: least(programs, file, url))
    return Sample(cpu, file.stat().st_size, lines, seconds)


def streamed(feed, process, sink, size, lines):
    """A service to which a sender writes lines as fast as they are taken."""
    before, stored, began = cpu(process.pid), sink.figures["bytes"], time.monotonic()
    subprocess.check_call([*feed, str(lines), str(size), "0"])
    # Framing only adds to what the lines are without their ends.
    until(lambda: sink.figures["bytes"] - stored >= lines * (size - 1), "the lines of a stream")
    now = quiet(process.pid)
    return Sample(now - before, size * lines, lines, sink.figures["put"] - began, memory(process.pid, "VmHWM"))


def repeated(path, source, size):
    """A file of whole lines of another one again and again, of so many bytes at most; and how many lines they are."""
    with open(source, "rb") as text, open(path, "wb") as file:
        line = len(text.readline())
        left = size - size % line
        # A piece at a time: what this process has ever held counts as the peak of those that it starts.
        while left > 0:
            text.seek(0)
            while left > 0 and (piece := text.read(min(left, 1 << 20))):
                left -= file.write(piece)
    return path, size // line


def group(stack, programs, folder, lines=LINES, size=GB):
    """Sets everything up; what has to end is left to `stack`."""
    text = inputs.write(folder / "lines.log", inputs.text_lines(lines))
    large, most = repeated(folder / "large.log", text, size)
    objects = inputs.write(folder / "objects.log", inputs.json_lines(lines))
    cert, key = certificate(folder)
    one, four, wide = (stack.enter_context(Sink(programs, shards)) for shards in (1, 4, 64))
    secret = stack.enter_context(Kinesis(4, "--tls-cert", cert, "--tls-key", key))
    other = "C floor, JSON lines"
    # Name, file, Kinesis, lines of the output; at most so many times the floor.
    forms = [
        (PLAIN, large, four, "", 1.3),
        ("CBOR, 1 shard", large, one, "", 1.3),
        ("CBOR, 64 shards", large, wide, "", 1.3),
        ("CBOR over TLS", text, secret, f'ca_file = "{cert}"', None),
        ("JSON", text, four, 'wire = "json"', 2.0),
        ("a shard for each line", text, four, 'partition_key = "random"', None),
        ("json:/id, 64 shards", objects, wide, 'partition_key = "json:/id"', 2.5),
        ("gzip", text, four, 'compression = "gzip"', None),
    ]
    floors = {text: FLOOR, large: LEAST, objects: other}
    counts = {text: lines, large: most, objects: lines}
    things = {
        name: lambda file=file: floor(programs, file, four.url, counts[file]) for file, name in floors.items()
    }
    ratios = []
    for name, file, kinesis, output, target in forms:
        things[name] = lambda file=file, kinesis=kinesis, output=output: measured(
            folder, file, kinesis.url, output, file.stat().st_size, counts[file])
        ratios.append(Ratio(name, name, [floors[file]], target))
    for name, kind, where, address in [
        ("Unix stream", "unix", folder / "lines.sock", f"unix://{folder}/lines.sock"),
        ("TCP", "tcp", port := free_port(), f"tcp://127.0.0.1:{port}"),
    ]:
        sink = stack.enter_context(Sink(programs, 4))
        agent = Agent(folder, {"stream": f'type = "socket"\nlisten = ["{address}"]'}, sink.url)
        process = stack.enter_context(agent.running())
        feed = [programs["feed"], kind, str(where)]
        until(lambda: subprocess.run([*feed, "0", "217", "0"], capture_output=True).returncode == 0, address)
        things[name] = lambda feed=feed, process=process, sink=sink: streamed(feed, process, sink, 217, lines)
        ratios.append(Ratio(name, name, [FLOOR]))
    return Group(f"{lines:,} lines of 217 bytes; in CBOR to 1, 4 and 64 shards a GB of them", things, ratios)
