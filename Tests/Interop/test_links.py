"""Kubernetes' layout: names of containers are links to links to the files of their runtime, which rotates them."""

import os
import time

import oracle
import pytest
from test_same_content import Lines, require_exact


class Node:
    """/var/log/containers/x.log → /var/log/pods/…/0.log → /var/lib/…/0.log, in a folder of the test's own."""

    def __init__(self, root):
        self.containers, self.pods, self.store = root / "containers", root / "pods", root / "store"
        for folder in (self.containers, self.pods, self.store):
            folder.mkdir(parents=True)

    def add(self, name, number=0):
        """A container's first run, or the one that follows."""
        pod, store = self.pods / f"default_{name}" / "app", self.store / f"{name}-{number}"
        for folder in (pod, store):
            folder.mkdir(parents=True, exist_ok=True)
        (store / "0.log").touch()
        (pod / f"{number}.log").symlink_to(store / "0.log")
        link = self.containers / f"{name}_default_app.log"
        temporary = self.containers / "new-link"
        temporary.symlink_to(pod / f"{number}.log")
        os.replace(temporary, link)
        return store / "0.log"


@pytest.fixture
def server(start_local):
    return start_local("logs:4")


@pytest.mark.parametrize("open_files", [4096, 16], ids=["open", "closed"])
def test_containers_are_followed_through_links_rotation_and_restarts(open_files, server, make_agent, tmp_path):
    node = Node(tmp_path / "node")
    sources = [oracle.Source(number) for number in range(25)]
    files = [node.add(f"web-{source.number}") for source in sources]
    agent = make_agent(
        node.containers / "*.log", server.url, "logs", agent={"max_open_files": open_files}, linger="20ms"
    )
    lines = Lines(server)
    run = agent.start()
    for source, file in zip(sources, files):
        source.write(file, 50)
    lines.wait(*sources)

    # The runtime rotates: rename, and a new file by the old name. The links stay as they are.
    began = time.monotonic()
    for source, file in zip(sources, files):
        source.write(file, 10)
        os.rename(file, f"{file}.20261121-120000")
        source.write(f"{file}.20261121-120000", 10)
        file.touch()
        source.write(file, 10)
    lines.wait(*sources)

    # A container starts again: another target. The old one still gets its last words.
    for index, (source, file) in enumerate(zip(sources, files)):
        files[index] = node.add(f"web-{source.number}", 1)
        source.write(file, 10)
        source.write(files[index], 10)
    lines.wait(*sources)

    # A new pod, and one that goes.
    late = oracle.Source(len(sources))
    sources.append(late)
    files.append(node.add("late"))
    late.write(files[-1], 30)
    lines.wait(*sources)
    took = time.monotonic() - began
    assert run.terminate() == 0

    # The same while no agent runs.
    for source, file in zip(sources, files):
        source.write(file, 10)
        os.rename(file, f"{file}.1")
        source.write(file, 10)
    assert agent.once().process.returncode == 0
    require_exact(server, *sources)
    assert took < 15, "nothing waited for a search of everything"


def test_several_names_of_one_file_are_read_once(server, make_agent, logs):
    source = oracle.Source(1)
    source.write(logs / "app.log", 100)
    (logs / "link.log").symlink_to(logs / "app.log")
    os.link(logs / "app.log", logs / "hard.log")
    agent = make_agent(logs / "*.log", server.url, "logs")
    lines = Lines(server)
    run = agent.start()
    lines.wait(source)
    (logs / "late.log").symlink_to("app.log")
    source.write(logs / "late.log", 100)
    lines.wait(source)
    # One of its names goes, and the others still lead there.
    os.unlink(logs / "app.log")
    source.write(logs / "hard.log", 100)
    lines.wait(source)
    assert run.terminate() == 0
    require_exact(server, source)
