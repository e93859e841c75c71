"""The oracle with sockets: what senders of numbered lines lose when the agent is killed is what the promises allow, and no more.

Beside files that are rotated, lines come by UDP, TCP and a Unix stream, while calls fail and the stream is resharded. A
sender goes on with the next line when the agent is back. A line that is neither in the stream nor in the spool that a dead
agent left is lost, and every such line must have its reason:

- Killed: the kernel still had it, or it was sent less than WINDOW before. That is what the agent may have had in memory when
  nothing disturbed its calls, and, with `spool.when = "always"`, whatever disturbed them. Where calls fail and the spool takes
  only what cannot be delivered, memory may hold older ones.
- Whatever happened: never one that the dead agent's own account calls delivered or spooled.
- Stopped: the agent had not read it. Of a connection that is the end, behind the last line that it read; at most a part of one
  line was read, and that is in the stream, too. Every datagram between the first moment and SIGTERM arrives.
- A datagram may have been sent while nobody listened, or found the kernel's queue full, which the kernel counts.

Of files nothing is lost. A lost line never comes afterwards: it was really lost.

PENSTOCK_SOAK is how many seconds it takes (default: 70).
"""

import collections
import datetime
import json
import os
import re
import signal
import time

import judge
import oracle
import senders
import socket_senders
from soak import CHECKPOINT_AGE, Soak

SECONDS = float(os.environ.get("PENSTOCK_SOAK", 70))
# Seconds for which a line may be in memory alone: linger, a call or a write to the spool, and what a busy machine needs.
WINDOW = 2.0
MEMORY = 64 << 20


class SocketSoak(Soak):
    def __init__(self, *arguments):
        # What agents that were stopped have read of lines whose end came too late.
        self.pieces, self._known_pieces = set(), set()
        self.losses = collections.Counter()
        # By kind of life: the age of the oldest line that was lost out of memory; and the most bytes a kill took of a sender.
        self.oldest = collections.Counter()
        self.most_lost = 0
        super().__init__(*arguments)

    def _make_senders(self, folder):
        common = {"is_delivered": self.is_delivered, "state": self._state, "is_calm": self._is_calm, "promised": self._promised}
        files = [
            senders.Renaming(1, folder / "renaming", self._dice(), matches_rotated=True, **common),
            senders.CopyTruncating(2, folder / "copytruncating", self._dice(), matches_rotated=False, **common),
        ]
        self.port, self.path = socket_senders.free_port(self.chance), folder / "log.sock"
        self.udp = socket_senders.UDPSender(101, self._dice(), port=self.port)
        self.streams = [
            socket_senders.TCPSender(102, self._dice(), port=self.port),
            socket_senders.TCPSender(103, self._dice(), port=self.port),
            socket_senders.UnixSender(104, self._dice(), path=self.path),
        ]
        return [*files, self.udp, *self.streams]

    def _configure(self):
        self.agent.agent["memory_limit"] = MEMORY
        self._sockets = {
            "devices": {"type": "syslog", "listen": [f"udp://127.0.0.1:{self.port}"]},
            "net": {"type": "socket", "listen": [f"tcp://127.0.0.1:{self.port}", f"unix://{self.path}"]},
        }
        files = [sender for sender in self.senders if sender not in self._groups["net"] + self._groups["devices"]]
        self.agent.inputs = self._sockets | {
            "files": {
                "type": "file", "start_at": "beginning", "paths": [path for sender in files for path in sender.patterns],
            }
        }

    @property
    def _groups(self):
        """Senders by their input."""
        return {"devices": [self.udp], "net": self.streams}

    def _configure_life(self):
        is_disturbed = super()._configure_life()
        output = self.agent.output
        output["spool"]["when"] = self.chance.choice(["failure", "failure", "always"])
        output["rate_limit"] = self.chance.choice([0, 0, 0, 100])
        return is_disturbed

    def lines_of(self, data):
        """Of a record; a piece of a line is none."""
        if data.startswith(b"s00") or oracle.parse(data):
            return [data]
        self.pieces.add(data)
        return []

    def _exported(self):
        return [line for data in super()._exported() for line in self.lines_of(data)]

    # The end of a life

    def _end(self, run, gently):
        if gently:
            return super()._end(run, True)
        self.kinesis.agent_is_killed()
        # Held, so that it can be seen what the kernel has; then killed.
        os.kill(run.pid, signal.SIGSTOP)
        death = time.time()
        self._held = {sender: sender.held() for group in self._groups.values() for sender in group}
        self._dropped = self.udp.dropped()
        run.kill()
        return death

    def _bury(self, run, death, ends_gently, is_disturbed):
        before = self.owed
        super()._bury(run, death, ends_gently, is_disturbed)
        output = self.agent.output
        is_strict = output["spool"]["when"] == "always" or not (is_disturbed or output["rate_limit"])
        kind = "always" if output["spool"]["when"] == "always" else "calm" if is_strict else "disturbed"
        account = self._account(run)
        if account:
            self._compare_carried_over(account, before)
        for name, group in self._groups.items():
            settled, missing = 0, {}
            for sender in group:
                first, end = sender.bury()
                source = sender.source.number
                there = self.judge.arrived_of([(source, first, end)])
                missing[sender] = [
                    number for number in range(first, end) if (source, number) not in there and (source, number) not in self.owed
                ]
                settled += end - first - len(missing[sender])
                self.counts["lines to sockets"] += end - first
            where = f"run {len(self.agent.runs) - 1}, {kind}, {'stopped' if ends_gently else 'killed'}, {name}"
            if ends_gently:
                self._explain_stop(run, death, name, missing, settled, account, where)
            else:
                claimed = account[name]["read"] - account[name]["in_flight"] - account[name]["dropped"] if account else 0
                assert settled >= claimed, f"{where}: {claimed} delivered or spooled by its own account, found {settled}"
                self._explain_kill(run, death, missing, kind, is_strict, where)
            for sender, numbers in missing.items():
                self.judge.write_off((sender.source.number, number) for number in numbers)

    def _account(self, run):
        """What the agent has written down of its inputs' records; None if it did not get so far."""
        try:
            ledger = json.loads((self.agent.state / "ledger.json").read_text())
        except FileNotFoundError:
            return None
        if ledger["process"] != run.pid:
            return None
        return {
            each["input"]: {name: value["records"] for name, value in each.items() if name != "input"}
            for each in ledger["inputs"]
        }

    def _compare_carried_over(self, account, before):
        """What a start says is left in the spool is what the dead agent had left there."""
        for name, group in self._groups.items():
            sources = {sender.source.number for sender in group}
            left = sum(times for (source, _), times in before.items() if source in sources)
            pieces = len(self._known_pieces) if name == "net" else 0
            assert left <= account[name]["carried_over"] <= left + pieces, f"{name}: {left} left, {account[name]}"
            self.counts["lines of senders found in the spool"] += left

    def _explain_kill(self, run, death, missing, kind, is_strict, where):
        listening = since(run)
        assert not self.pieces - self._known_pieces, f"{where}: {self.pieces - self._known_pieces}"
        for sender, numbers in missing.items():
            unexplained = []
            for number in numbers:
                age = death - sender.when(number)
                if sender is self.udp and sender.when(number) < listening:
                    self.losses["nobody listened"] += 1
                elif age <= 0:
                    self.losses["sent to a dead agent"] += 1
                elif number >= self._held[sender]:
                    self.losses["in the kernel"] += 1
                else:
                    self.losses[f"in memory, {kind}"] += 1
                    self.oldest[kind] = max(self.oldest[kind], age)
                    if age > WINDOW and is_strict:
                        unexplained.append(number)
            if sender is self.udp:
                self.losses["dropped by the kernel"] += self._dropped
                del unexplained[:self._dropped]
            size = sum(len(sender.source.line(number)) for number in numbers)
            self.most_lost = max(self.most_lost, size)
            assert not unexplained, (
                f"{where}: {sender.name} lost lines that were sent up to {death - sender.when(unexplained[0]):.2f} s before: "
                + judge.ranges((sender.source.number, number) for number in unexplained)
            )

    def _explain_stop(self, run, death, name, missing, settled, account, where):
        figures = closing(run)[name]
        assert account is not None, where
        mine = account[name]
        assert mine["in_flight"] == mine["dropped"] == mine["dead_lettered"] == 0, f"{where}: {mine}"
        if name == "devices":
            self.losses["dropped by the kernel"] += figures.get("dropped_by_kernel", 0)
            assert settled == figures.get("received", 0) == mine["read"], f"{where}: {settled} found, {figures}, {mine}"
            listening = since(run)
            early = [number for number in missing[self.udp] if listening <= self.udp.when(number) < death]
            assert len(early) <= figures.get("dropped_by_kernel", 0), f"{where}: {early[:5]}"
            self.losses["nobody listened"] += len(missing[self.udp]) - len(early)
            return
        # A piece is a record, too.
        pieces, self._known_pieces = self.pieces - self._known_pieces, set(self.pieces)
        read = figures.get("records", 0)
        assert read == mine["read"] and 0 <= read - settled <= len(self.streams), f"{where}: {settled} found, {figures}, {mine}"
        assert len(pieces) <= read - settled, f"{where}: {pieces}"
        next_lines = []
        for sender, numbers in missing.items():
            assert not numbers or numbers == list(range(numbers[0], sender.sent)), f"{where}: {sender.name} {numbers}"
            next_lines.append(sender.source.line(numbers[0] if numbers else sender.sent))
            cut = sender.source.number, sender.sent
            if self.judge.arrived_of([(*cut, cut[1] + 1)]) or cut in self.owed:
                # Of this piece nothing but the line end was missing: its sender sends the line again.
                self.counts["lines kept without their ends"] += 1
                self.judge.allow([cut])
            self.losses["not read before a stop"] += len(numbers)
        for piece in pieces:
            assert any(line.startswith(piece) for line in next_lines), f"{where}: nobody wrote {piece}"
            self.counts["pieces of lines kept"] += 1

    def stop(self):
        super().stop()
        for group in self._groups.values():
            for sender in group:
                first, end = sender.bury()
                assert sender is self.udp or first == end
                self.losses["nobody listened"] += end - first
                self.judge.write_off((sender.source.number, number) for number in range(first, sender.source.written))

    def finish(self):
        # Who reads once does not listen.
        self.agent.inputs = {name: table for name, table in self.agent.inputs.items() if name not in self._sockets}
        return super().finish()


def since(run):
    """When it listened for datagrams."""
    found = re.search(r"^(\S+)Z info listening address=udp:", run.log, re.MULTILINE)
    return datetime.datetime.fromisoformat(found[1] + "+00:00").timestamp() + 0.001 if found else float("inf")


def closing(run):
    """The figures with which its sockets were closed, by their inputs."""
    found = collections.defaultdict(dict)
    for line in run.lines:
        if "a socket is closed" in line or "an input of streams has ended" in line:
            found[re.search(r"\binput=(\w+)", line)[1]] = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)\b", line)}
    return found


def life(chance):
    """Seconds: often hardly enough to begin, often more than the window."""
    kind = chance.random()
    if kind < 0.5:
        return chance.uniform(0.05, 1.2)
    return chance.uniform(1.2, 3.5) if kind < 0.85 else chance.uniform(3.5, 6)


def test_kills_lose_what_the_kernel_and_memory_held_and_stops_lose_nothing(start_local, make_agent, logs, chance, figure):
    server = start_local("logs:4", "--memory=1GiB")
    with SocketSoak(server, make_agent, logs, chance) as soak:
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            seconds = life(chance)
            # Before it listens to signals, one kills it.
            soak.live(seconds, ends_gently=seconds > 0.5 and chance.random() < 0.25)
        soak.stop()
        took = time.monotonic() - began
        verdict = soak.finish()
        counts = soak.counts
        figure(f"{counts['kills']} kills in {took:.0f} s; {verdict}")
        figure(f"of {counts['lines to sockets']} lines to sockets lost: {dict(soak.losses)}, most bytes {soak.most_lost}")
        figure(f"sent before the kill, the oldest lost: { {kind: f'{age:.2f} s' for kind, age in soak.oldest.items()} }")
        figure(f"agent: {dict(counts)}")
        for sender in soak.senders:
            figure(f"{sender.name}: {dict(sender.counts)}")
        verdict.require()
        assert verdict.duplicated <= soak.judge.bound
        assert not soak.stale, f"older than {CHECKPOINT_AGE} s and not in the checkpoint: {judge.ranges(soak.stale)}"
        # On a machine that has time for it.
        assert counts["kills"] > SECONDS / 20 and counts["lines to sockets"] > 100 * SECONDS
        assert counts["lines of senders found in the spool"] > 0
        if SECONDS >= 300:
            assert counts["pieces of lines kept"] > 0 and soak.losses["not read before a stop"] > 0
            assert {"calm", "disturbed", "always"} == soak.oldest.keys()
