"""An agent that receives datagrams, what sends them, and what the agent says became of them."""

import collections
import json
import re
import socket
import time

import oracle
from conftest import until


def listen(make_agent, url, stream, listen, type="syslog", agent=None, table=None, **output):
    """An agent with one input of sockets."""
    agent = make_agent([], url, stream, agent=agent, **output)
    agent.inputs = {"sock": {"type": type, "listen": listen} | (table or {})}
    return agent


def address(run, scheme="udp"):
    """Host and port of a socket that the kernel chose the port of."""
    line = run.wait_for(f"address={scheme}://")
    host, port = re.search(rf"address={scheme}://([0-9.]+|\[[0-9a-f:]+\]):(\d+)", line).group(1, 2)
    return host.strip("[]"), int(port)


def stored(url, stream, count, timeout=20):
    found = []

    def enough():
        found[:] = [record.data for record in oracle.user_records(url, stream)]
        return len(found) >= count

    until(enough, timeout, lambda: f"{count} records, there are {len(found)}: {found[:20]}", every=0.1)
    return found


def account(agent):
    """The input's account, as the agent has written it down."""
    try:
        inputs = json.loads((agent.state / "ledger.json").read_text())["inputs"]
    except FileNotFoundError:
        return collections.Counter()
    one = next(each for each in inputs if each["input"] == "sock")
    return {name: value["records"] for name, value in one.items() if name != "input"}


def figures(run):
    """What the log says of the sockets at their end, added up."""
    totals = {}
    for line in run.lines:
        if "a socket is closed" in line:
            for name, value in re.findall(r"(\w+)=(\d+)\b", line):
                totals[name] = totals.get(name, 0) + int(value)
    return totals


def sendto(port, count, start=0, pause=0.0, size=200):
    """Sends numbered datagrams; those that the kernel took at all."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    for number in range(start, start + count):
        sock.send((b"%08d " % number).ljust(size, b"x"))
        if pause and number % 50 == 0:
            time.sleep(pause)
    sock.close()
    return count
