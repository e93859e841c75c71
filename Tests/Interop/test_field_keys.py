"""`partition_key = "json:/pointer"`: each record goes where MD5 of the value in it says."""

import gzip
import json

import oracle
import pytest
from conftest import until


def user_records(url):
    """(shard's range, user record) of everything."""
    return oracle.by_shard(url, "logs", oracle.ShardReader.user_records)


def require_placed(found):
    """Nothing lies where the KCL would drop it, and MD5 of the key has placed it."""
    for (first, last), record in found:
        assert first <= record.hash_key <= last and record.explicit_hash_key is None, record


def event(device, number, chance):
    """A line of JSON that names its device somewhere."""
    members = {"n": number, "text": "x" * chance.randrange(200), "tags": {"id": "no", "list": [1, {"id": 2}]}}
    members = list(members.items()) + [("device", {"kind": "sensor", "id": device})]
    chance.shuffle(members)
    return json.dumps(dict(members), ensure_ascii=chance.random() < 0.5).encode()


@pytest.mark.parametrize("compression", ["none", "gzip_record"])
def test_a_record_goes_where_its_key_says_and_keys_keep_their_order(
    start_local, make_agent, logs, chance, figure, compression
):
    server = start_local("logs:5")
    devices = [f"device-{number}" for number in range(2_000)] + ["日本語", "naïve", "a" * 256, 'quo"ted']
    numbers = {device: 0 for device in devices}
    lines = []
    for _ in range(60_000):
        # Some are busy, most are not.
        device = devices[min(chance.randrange(len(devices)), chance.randrange(len(devices)))]
        lines.append(event(device, numbers[device], chance))
        numbers[device] += 1
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run = make_agent(
        logs / "*.log", server.url, "logs", partition_key="json:/device/id", max_in_flight=1, compression=compression
    ).once()
    assert run.process.returncode == 0 and "keyless" not in run.log, run.log
    found = list(user_records(server.url))
    require_placed(found)
    order = {}
    for _, record in found:
        data = gzip.decompress(record.data) if compression == "gzip_record" else record.data
        value = json.loads(data)
        assert record.partition_key == value["device"]["id"]
        order.setdefault(record.partition_key, []).append(value["n"])
    assert order == {device: list(range(count)) for device, count in numbers.items() if count}
    figure(f"{len(found)} records of {len(order)} keys in place and in order; {run.cpu:.2f} s of CPU")


def test_records_without_a_key_go_anywhere_and_are_counted(start_local, make_agent, logs, chance, penstock, figure):
    server = start_local("logs:4")
    keyed = [event(f"device-{number % 50}", number, chance) for number in range(5_000)]
    keyless = [
        b"plain text", b"", b"{}", b'{"device": null}', b'{"device": {"id": null}}', b'{"device": {"id": ""}}', b"[1, 2]",
        b'{"device": {"id": {"a": 1}}}', b'{"device": {"id": [1]}}', b'{"device": "x"}', b'{"device": {"id": "\xff\xfe"}}',
        b'{"devic', b"\0\0", b'{"other": {"id": "y"}}',
    ] * 200
    lines = keyed + keyless
    chance.shuffle(lines)
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run = make_agent(logs / "*.log", server.url, "logs", partition_key="json:/device/id").once()
    assert run.process.returncode == 0
    found = list(user_records(server.url))
    assert sorted(record.data for _, record in found) == sorted(lines)
    require_placed(found)
    # A warning says what, where, and how to see it; the end says how many.
    warning = next(line for line in run.lines if " warning " in line)
    assert "json:/device/id" in warning and "input=app" in warning and "penstock read" in warning
    assert f"keyless={len(keyless)}" in run.lines[-1]
    shares = [0] * 4
    for (first, _), record in found:
        if not record.partition_key.startswith("device-"):
            shares[first * 4 // 2**128] += 1
    assert sum(shares) == len(keyless) and min(shares) > len(keyless) / 4 * 0.8, shares
    figure(f"{len(keyless)} records without a key over the shards: {shares}")
    result = penstock("read", "logs", "--endpoint", server.url)
    assert result.returncode == 0 and len(result.stdout.split(b"\n")) - 1 == len(lines)


def test_records_of_several_lines_and_other_values_have_keys_too(start_local, make_agent, logs):
    server = start_local("logs:4")
    texts = []
    for number in range(300):
        value = {"list": [{"id": number % 7 if number % 2 else f"t{number % 5}"}], "flag": number % 3 == 0}
        texts.append(json.dumps(value, indent=2))
    (logs / "app.log").write_text("".join(text + "\n" for text in texts))
    run = make_agent(
        logs / "*.log", server.url, "logs", partition_key="json:/list/0/id", inputs={"multiline_start": r"^\{"}
    ).once()
    assert run.process.returncode == 0
    found = list(user_records(server.url))
    require_placed(found)
    assert sorted(record.data.decode() for _, record in found) == sorted(texts)
    for _, record in found:
        assert record.partition_key == str(json.loads(record.data)["list"][0]["id"])


def test_blocks_hold_records_of_one_shard_in_the_order_of_their_keys(start_local, make_agent, logs, chance):
    server = start_local("logs:4")
    lines = [event(f"device-{number % 100}", number, chance) for number in range(20_000)]
    (logs / "app.log").write_bytes(b"".join(line + b"\n" for line in lines))
    run = make_agent(
        logs / "*.log", server.url, "logs", partition_key="json:/device/id", compression="gzip", max_in_flight=1
    ).once()
    assert run.process.returncode == 0
    homes, order = {}, {}
    for bounds, record in oracle.by_shard(server.url, "logs", oracle.ShardReader.kinesis_records):
        values = [json.loads(line) for line in gzip.decompress(record["Data"]).splitlines()]
        assert record["PartitionKey"] == values[0]["device"]["id"]
        for value in values:
            order.setdefault(value["device"]["id"], []).append(value["n"])
            homes.setdefault(value["device"]["id"], set()).add(bounds)
    assert all(len(shards) == 1 for shards in homes.values())
    assert order == {f"device-{number}": list(range(number, 20_000, 100)) for number in range(100)}


def test_a_line_that_is_split_stays_in_one_shard(start_local, make_agent, logs):
    server = start_local("logs:8")
    lines = [json.dumps({"id": f"k{number}", "text": "y" * 50_000}) for number in range(40)]
    (logs / "app.log").write_text("".join(line + "\n" for line in lines))
    run = make_agent(
        logs / "*.log", server.url, "logs", partition_key="json:/id", inputs={"max_record": "16KiB"}
    ).once()
    assert run.process.returncode == 0 and "keyless" not in run.log, run.log
    found = list(user_records(server.url))
    require_placed(found)
    sizes = {}
    for _, record in found:
        sizes[record.partition_key] = sizes.get(record.partition_key, 0) + len(record.data)
    assert sizes == {f"k{number}": len(lines[number]) for number in range(40)}


def test_a_reload_changes_the_key(start_local, make_agent, logs, chance):
    server = start_local("logs:2")
    path = logs / "app.log"
    path.touch()
    agent = make_agent(path, server.url, "logs", linger="10ms", inputs={"start_at": "beginning"})
    run = agent.start()
    run.wait_for("penstock runs")
    path.write_bytes(event("one", 1, chance) + b"\n")
    until(lambda: len(oracle.user_records(server.url, "logs")) == 1, 10, lambda: run.log)
    agent.output["partition_key"] = "json:/device/id"
    agent.write_config()
    run.process.send_signal(1)
    run.wait_for("another configuration is taken on", 10)
    with open(path, "ab") as file:
        file.write(event("two", 2, chance) + b"\n")
    until(lambda: len(oracle.user_records(server.url, "logs")) == 2, 10, lambda: run.log)
    keys = {record.partition_key for record in oracle.user_records(server.url, "logs")}
    assert keys == {"a", "two"}
    assert run.terminate() == 0
