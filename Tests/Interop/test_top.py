"""`penstock top` in a real terminal, tmux's, and without one."""

import json
import os
import subprocess
import time

import pytest
from conftest import BINARY, environment, until
from socket_senders import free_port

LINE = b"a line of the log, number %08d\n"


class Terminal:
    """A terminal of tmux's, on a server of its own."""

    def __init__(self, folder, columns, rows, command):
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), command)

    def _run(self, *arguments):
        env = environment(TERM="xterm-256color", LANG="C.UTF-8")
        return subprocess.run([*self._tmux, *arguments], env=env, capture_output=True, text=True, timeout=10, check=True).stdout

    def resize(self, columns, rows):
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def hit(self, key):
        self._run("send-keys", key)

    @property
    def lines(self):
        return self._run("capture-pane", "-p").rstrip("\n").split("\n")

    @property
    def text(self):
        return "\n".join(self.lines)

    def stop(self):
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=10)


@pytest.fixture
def watched(start_local, make_agent, logs, chance):
    """An agent with its admin server, a file with much in it, and one whose name is hostile."""
    server = start_local("logs:40")
    (logs / "a.log").write_bytes(b"".join(LINE % number for number in range(20_000)))
    (logs / "hostile\x1b[31m\x1b]0;owned\x07.log").write_bytes(b"one line\n")
    agent = make_agent(logs / "*.log", server.url, "logs", agent={"admin": f"127.0.0.1:{free_port(chance)}"})
    agent.run = agent.start()
    until(lambda: top(agent, "--json").returncode == 0, 10, lambda: agent.run.log)
    return agent


def top(agent, *options):
    return subprocess.run([BINARY, "top", "--config", agent.config, *options], env=environment(), capture_output=True,
                          timeout=20)


@pytest.fixture
def terminal(tmp_path):
    made = []

    def start(columns, rows, command):
        made.append(Terminal(tmp_path, columns, rows, command))
        return made[-1]

    yield start
    for each in made:
        each.stop()


def test_it_fits_its_terminal_and_leaves_it_as_it_was(watched, terminal, logs):
    screen = terminal(80, 24, f"stty -a > {logs}/before; {BINARY} top --config {watched.config} --every 200ms; "
                              f"echo ended with $?; stty -a > {logs}/after; sleep 60")
    until(lambda: "delivering" in screen.lines[0], 10, lambda: screen.text)
    until(lambda: "20,001" in screen.text, 15, lambda: screen.text)
    assert len(screen.lines) <= 24 and all(len(line) <= 80 for line in screen.lines), screen.text
    for word in ("records/s", "latency", "input", "busiest of 40 shards", "shardId-0000"):
        assert word in screen.text, screen.text
    small = len(screen.lines)
    screen.resize(160, 60)
    until(lambda: len(screen.lines) > 40, 5, lambda: screen.text)
    assert "hostile\ufffd[31m" in screen.text and len(screen.lines) > small
    screen.resize(40, 10)
    until(lambda: len(screen.lines) <= 10 and "app    file" in screen.text, 5, lambda: screen.text)
    screen.resize(80, 24)
    # What happens is seen.
    with open(logs / "a.log", "ab") as log:
        log.write(b"".join(LINE % number for number in range(1_000)))
    until(lambda: "21,001" in screen.text, 10, lambda: screen.text)
    screen.hit("q")
    until(lambda: "ended with 0" in screen.text, 5, lambda: screen.text)
    assert "delivering" not in screen.text, "the screen is not the one of before"
    until((logs / "after").exists, 5, "stty")
    assert (logs / "after").read_text() == (logs / "before").read_text()


def test_an_agent_that_goes_and_comes_back_is_told_of(watched, terminal):
    screen = terminal(100, 30, f"{BINARY} top --config {watched.config} --every 200ms; sleep 60")
    until(lambda: "delivering" in screen.lines[0], 10, lambda: screen.text)
    assert watched.run.terminate() == 0
    until(lambda: screen.lines[0].startswith("no answer"), 10, lambda: screen.text)
    assert "does the agent run" in screen.lines[0]
    watched.run = watched.start()
    until(lambda: "delivering" in screen.lines[0], 15, lambda: screen.text)


def test_without_a_terminal_it_prints_once_and_plainly(watched):
    shown = top(watched)
    assert shown.returncode == 0, shown.stderr
    assert b"\x1b" not in shown.stdout and b"\x07" not in shown.stdout
    text = shown.stdout.decode()
    assert "delivering" in text and text.count("shardId-") == 40 and "hostile\ufffd[31m" in text
    status = json.loads(top(watched, "--json").stdout)
    assert status["state"] == "delivering" and len(status["shards"]) == 40


def test_who_does_not_answer_is_named(make_agent, logs, chance):
    port = free_port(chance)
    agent = make_agent(logs / "*.log", "http://127.0.0.1:1", "logs", agent={"admin": f"127.0.0.1:{port}"})
    agent.write_config()
    began = time.monotonic()
    shown = top(agent)
    assert shown.returncode == 69 and f"127.0.0.1:{port}".encode() in shown.stderr and b"does the agent run" in shown.stderr
    assert time.monotonic() - began < 5
    agent.agent["admin"] = ""
    agent.write_config()
    assert top(agent).returncode == 78


def test_the_token_is_found_by_the_configuration(start_local, make_agent, logs, tmp_path, chance):
    server = start_local("logs:1")
    token, wrong = tmp_path / "token", tmp_path / "wrong"
    for path in (token, wrong):
        path.write_text(os.urandom(16).hex())
        path.chmod(0o600)
    settings = {"admin": f"127.0.0.1:{free_port(chance)}", "admin_token_file": str(token)}
    agent = make_agent(logs / "*.log", server.url, "logs", agent=settings)
    agent.start()
    until(lambda: top(agent, "--json").returncode == 0, 10, "an answer")
    shown = top(agent, "--token-file", wrong)
    assert shown.returncode == 77 and b"401" in shown.stderr
