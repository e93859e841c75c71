"""The Debian package: what is in it, and what becomes of a clean Debian that it is installed in.

PENSTOCK_DEB names a package that is built already; else `make deb` builds it. The clean Debian is debootstrap's, from the
mirror that this machine uses; each test has a copy of it, in a mount namespace of its own.
"""

import os
import re
import shutil
import signal
import socket
import subprocess

import oracle
import pytest
from conftest import BINARY, ROOT, environment, until
from debian import Agent, Debian, built, configure, debootstrap, run

MEGA = 1_000_000
UNITS = ["penstock.service", *(f"penstock-syslog-{name}.socket" for name in ("udp", "tcp", "tls"))]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap, chroot and mount need root")


@pytest.fixture(scope="session")
def package():
    return built()


def field(package, name):
    return run("dpkg-deb", "-f", package, name).strip()


@pytest.fixture(scope="session")
def unpacked(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    run("dpkg-deb", "-x", package, folder)
    return folder


# The package


def test_the_package_is_small(package, unpacked, figure):
    size, installed = package.stat().st_size, int(field(package, "Installed-Size")) * 1024
    binary = (unpacked / "usr/bin/penstock").stat().st_size
    figure(f"{size / MEGA:.1f} MB, {installed / MEGA:.1f} MB installed, of which the binary {binary / MEGA:.1f} MB")
    assert size <= 10 * MEGA and installed <= 30 * MEGA


def test_it_depends_on_debians_own_libraries_alone(package, unpacked):
    depends = {re.split(r"[ (]", each.strip())[0] for each in field(package, "Depends").split(",")}
    assert depends == {
        "adduser", "libc6", "libcurl4", "libgcc-s1", "libisal2", "libpcre2-8-0", "libprotobuf-c1", "libssl3",
        "libstdc++6", "zlib1g",
    }
    dynamic = run("readelf", "-d", unpacked / "usr/bin/penstock")
    assert "swift" not in dynamic and "Foundation" not in dynamic
    assert "RUNPATH" not in dynamic and "RPATH" not in dynamic


def test_the_version_is_the_same_wherever_it_stands(package, unpacked):
    upstream = field(package, "Version").rpartition("-")[0]
    assert run(unpacked / "usr/bin/penstock", "--version").strip() == upstream
    assert run("dpkg-parsechangelog", "-l", ROOT / "packaging/debian/changelog", "-S", "Version").startswith(upstream + "-")
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == upstream
    assert run(BINARY, "--version").strip() == upstream


def test_lintian_has_nothing_to_say(package):
    said = run("lintian", "--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning", package)
    assert said == ""


def test_the_man_pages_have_every_key_and_every_command_and_no_warnings(unpacked, tmp_path):
    pages = {}
    for page in ("man1/penstock.1", "man5/penstock.toml.5"):
        path = unpacked / "usr/share/man" / f"{page}.gz"
        env = environment(LC_ALL="C.UTF-8", MANWIDTH="80", MAN_KEEP_FORMATTING="")
        assert run("sh", "-c", 'man --warnings -E UTF-8 -Tutf8 -Z -l "$0" >/dev/null', path, env=env) == ""
        pages[page] = re.sub(r"\s+", " ", run("man", "-P", "cat", "-l", path, env=env))
    assert "�" not in pages["man5/penstock.toml.5"]
    keys = re.findall(r"^(?:# )?([a-z_]+) = ", (ROOT / "config/penstock.toml").read_text(), re.M)
    assert len(keys) > 50
    assert [key for key in keys if not re.search(rf" {key} (default|for example) ", pages["man5/penstock.toml.5"])] == []
    commands = re.findall(r"^  ([a-z]+) ", run(BINARY, "--help").partition("SUBCOMMANDS:")[2], re.M)
    assert len(commands) >= 9
    assert [name for name in commands if f"penstock {name} " not in pages["man1/penstock.1"]] == []


def test_the_completions_are_those_of_the_command(unpacked, penstock):
    folder = unpacked / "usr/share"
    bash = folder / "bash-completion/completions/penstock"
    run("bash", "-n", bash)
    # bash itself: what it offers behind `penstock che`.
    offered = run(
        "bash", "-c", f'. {bash}; COMP_WORDS=(penstock che); COMP_CWORD=1; COMP_LINE="penstock che"; COMP_POINT=12; '
        '$(complete -p penstock | sed "s/.*-F \\([^ ]*\\).*/\\1/") penstock che penstock; echo "${COMPREPLY[@]}"',
    )
    assert offered.split() == ["check"]
    for shell, path in (("zsh", "zsh/vendor-completions/_penstock"), ("fish", "fish/vendor_completions.d/penstock.fish")):
        assert (folder / path).read_bytes() == penstock("completion", shell).stdout


# A clean Debian


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """A clean Debian with systemd, rsyslog and logrotate, into which nothing of ours was installed yet."""
    folder = tmp_path_factory.mktemp("debian") / "root"
    debootstrap(folder, "logrotate", "rsyslog", "systemd", "procps")
    debian = Debian(folder)
    debian.run("apt-get", "update", "-qq")
    yield debian
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def installed(clean, package):
    """The same with our package."""
    said = clean.install(package)
    assert "Setting up penstock" in said
    return clean


@pytest.fixture
def debian(installed, tmp_path):
    """A copy, with our package, for one test."""
    folder = tmp_path / "root"
    run("cp", "-a", "--reflink=auto", installed.folder, folder)
    yield Debian(folder)
    shutil.rmtree(folder, ignore_errors=True)


@as_root
def test_what_is_installed_checks_clean_and_waits_for_a_stream(debian):
    assert re.search(r"uid=\d+\(penstock\) gid=\d+\(penstock\)", debian.run("id", "penstock"))
    stat = debian.run("stat", "-c", "%n %U:%G %a", "/etc/penstock", "/etc/penstock/penstock.toml", "/var/lib/penstock")
    assert stat.splitlines() == [
        "/etc/penstock root:penstock 750", "/etc/penstock/penstock.toml root:root 644",
        "/var/lib/penstock penstock:penstock 750",
    ]
    assert debian.run("systemctl", "is-enabled", *UNITS, check=False).split() == ["enabled"] + ["disabled"] * 3
    # The only fault of what is shipped is what only the administrator knows.
    faults = debian.run("env", "AWS_REGION=eu-west-1", "penstock", "check", check=False)
    assert re.fullmatch(r"/etc/penstock/penstock.toml:\d+:\d+: outputs.stream.stream: needs a stream: .*\n", faults)
    configure(debian, "http://127.0.0.1:1", "logs")
    assert "no faults" in debian.run("penstock", "check", user=True)
    assert debian.run("dpkg", "--verify", "penstock").split() == ["??5??????", "c", "/etc/penstock/penstock.toml"]


@as_root
def test_systemd_takes_the_units_and_finds_them_well_confined(debian, figure):
    assert debian.run("systemd-analyze", "verify", "--man=no", *UNITS) == ""
    said = debian.run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", "penstock.service")
    exposure = re.search(r"Overall exposure level for penstock.service: (\S+)", said)[1]
    figure(f"exposure {exposure}")
    assert float(exposure) <= 1.5
    # The keys' drop-in, as its own text says to install it.
    folder = debian / "etc/systemd/system/penstock.service.d"
    folder.mkdir(parents=True)
    shutil.copy(debian / "usr/share/doc/penstock/examples/credentials.conf", folder)
    assert debian.run("systemd-analyze", "verify", "--man=no", "penstock.service") == ""
    # The unit's bound of memory lies above what the agent keeps to.
    unit = (debian / "lib/systemd/system/penstock.service").read_text()
    limit = re.search(r"memory_limit = \"(\d+)MiB\"", (debian / "etc/penstock/penstock.toml").read_text())[1]
    assert int(re.search(r"MemoryMax=(\d+)M", unit)[1]) >= int(limit) + 32


class Writer:
    """Numbered messages, each once, by a way of its own; what was handed over is `written`."""

    def __init__(self, name, write):
        self.name, self.write, self.written = name, write, 0

    def more(self, count):
        for _ in range(count):
            self.write(f"{self.name} {self.written:06d} of test_deb")
            self.written += 1


@as_root
def test_files_through_logrotate_and_sockets_are_delivered_once_each_over_a_restart(
    debian, local_kinesis, stream, figure
):
    configure(debian, local_kinesis.url, stream)
    shutil.copy(debian / "usr/share/doc/penstock/examples/conf.d/system.toml", debian / "etc/penstock/conf.d")
    (debian / "etc/penstock/conf.d/sockets.toml").write_text(
        '[inputs.sockets]\ntype = "syslog"\ngroup = "adm"\n'
        'listen = ["unix:///run/penstock/stream.sock", "unixgram:///run/penstock/log.sock"]\n'
    )
    # Debian's rsyslog with Debian's rules, but for the kernel's messages, which are this machine's.
    rules = (debian / "etc/rsyslog.conf").read_text()
    (debian / "etc/rsyslog.conf").write_text(re.sub(r"^module\(load=\"imklog\"\).*$", "", rules, flags=re.M))
    rsyslog = subprocess.Popen(debian.command("rsyslogd", "-n", "-iNONE"), stdin=subprocess.DEVNULL)
    agent = None
    try:
        until(lambda: (debian / "dev/log").is_socket(), 10, "rsyslogd")
        agent = Agent(debian, "app", "system")
        assert oct((debian / "run/penstock/log.sock").stat().st_mode)[-3:] == "660"
        adm = debian.run("getent", "group", "adm").split(":")[2]
        assert (debian / "run/penstock/log.sock").stat().st_gid == int(adm)

        local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        local.connect(str(debian / "dev/log"))
        (debian / "var/log/app").mkdir()
        app = Writer("app", lambda text: append(debian / "var/log/app/app.log", text + "\n"))
        system = Writer("system", lambda text: local.send(f"<134>test: {text}".encode()))
        datagrams = Writer("datagram", lambda text: to_agent.send(f"<134>test: {text}".encode()))
        streamed = Writer("stream", lambda text: connection.sendall(f"<134>test: {text}\n".encode()))
        writers = [app, system, datagrams, streamed]

        def rotate():
            debian.run("logrotate", "--force", "/etc/logrotate.conf")
            # What `systemctl kill -s HUP rsyslog.service` does where systemd runs.
            rsyslog.send_signal(signal.SIGHUP)

        for part in range(2):
            if part == 1:
                agent.stop()
                # The agent is away: files go on, and are rotated.
                app.more(1000), system.more(1000)
                rotate()
                app.more(1000), system.more(1000)
                agent = Agent(debian, "app", "system")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_agent, socket.socket(socket.AF_UNIX) as connection:
                to_agent.connect(str(debian / "run/penstock/log.sock"))
                connection.connect(str(debian / "run/penstock/stream.sock"))
                for writer in writers:
                    writer.more(2000)
                rotate()
                for writer in writers:
                    writer.more(2000)
        expected = {f"{writer.name} {number:06d}" for writer in writers for number in range(writer.written)}
        found = re.compile(rb"(\w+ \d{6}) of test_deb")

        def arrived():
            return [found.search(each.data)[1].decode() for each in oracle.user_records(local_kinesis.url, stream) if found.search(each.data)]

        def missing():
            left = expected - set(arrived())
            return f"{len(left)} records, like {sorted(left)[:3]}:\n{agent.log.read_text()}"

        until(lambda: set(arrived()) >= expected, 30, missing, every=0.5)
        agent.stop()
        records = arrived()
        figure(f"{len(records)} records of {len(expected)}, 3 rotations, 1 restart")
        assert len(records) == len(expected)
        rotated = sorted(path.name for path in (debian / "var/log").glob("syslog*"))
        assert rotated == ["syslog", "syslog.1", "syslog.2.gz", "syslog.3.gz"]
    finally:
        for process in (rsyslog, agent and agent.process):
            if process:
                process.kill()
                process.wait(10)


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


@as_root
def test_an_upgrade_keeps_state_and_configuration_a_removal_too_and_a_purge_nothing(
    debian, package, local_kinesis, stream, tmp_path
):
    configure(debian, local_kinesis.url, stream)
    (debian / "etc/penstock/conf.d/more.toml").write_text('[inputs.more]\ntype = "file"\npaths = ["/var/log/more.log"]\n')
    (debian / "var/log/app").mkdir()

    def deliver(count):
        """Runs the agent until it has delivered so many lines in all; files are read on, not again."""
        agent = Agent(debian, "app")
        append(debian / "var/log/app/app.log", "a line\n" * 100)
        until(lambda: len(list(oracle.user_records(local_kinesis.url, stream))) >= count, 20, agent.log.read_text)
        agent.stop()
        assert len(list(oracle.user_records(local_kinesis.url, stream))) == count

    def texts():
        folder = debian / "etc/penstock"
        return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}

    deliver(100)
    before = texts()
    assert set(before) == {"penstock.toml", "more.toml"}
    os.chmod(debian / "etc/penstock", 0o755)

    # A newer package, whose shipped configuration is another.
    tree = tmp_path / "newer"
    run("dpkg-deb", "-R", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0-1", control.read_text(), flags=re.M))
    append(tree / "etc/penstock/penstock.toml", "# newer\n")
    newer = tmp_path / "penstock_99.0-1.deb"
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", tree, newer)
    debian.install(newer, "-o", "Dpkg::Options::=--force-confold")
    assert debian.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "penstock") == "99.0-1 installed"
    assert texts().items() >= before.items()
    # The administrator's own mode stays, and the scripts may run again.
    assert oct((debian / "etc/penstock").stat().st_mode)[-3:] == "755"
    for _ in range(2):
        debian.run("sh", "/var/lib/dpkg/info/penstock.postinst", "configure", "99.0-1")
    deliver(200)

    debian.run("apt-get", "remove", "-y", "-qq", "penstock")
    assert not (debian / "usr/bin/penstock").exists()
    assert texts().items() >= before.items() and (debian / "var/lib/penstock/checkpoints").exists()
    debian.install(newer)
    assert texts().items() >= before.items()
    deliver(300)

    debian.run("apt-get", "purge", "-y", "-qq", "penstock")
    left = [
        path for folder in ("etc", "var/lib", "usr", "lib/systemd") for path in (debian / folder).rglob("*penstock*")
    ]
    assert [path for path in left if "apt/" not in str(path)] == []


@as_root
def test_the_readme_installs_it(debian, package):
    """Line by line, on a Debian that had it before and was purged of it, with somebody at the editor who names the stream."""
    debian.run("apt-get", "purge", "-y", "-qq", "penstock")
    section = (ROOT / "README.md").read_text().partition("\n## Install\n")[2]
    lines = re.findall(r"^    (.*)$", section.strip("\n").partition("\n\n")[0], re.M)
    assert lines[0] == "make deb" and len(lines) > 3
    (debian / "root/.build-deb").mkdir()
    shutil.copy(package, debian / "root/.build-deb")
    (debian / "etc/apt/apt.conf.d/yes").write_text('APT::Get::Assume-Yes "true";\n')
    editor = debian / "usr/bin/editor"
    editor.write_text("#!/bin/sh\nexec sed -i -E 's/^# (stream|region) = /\\1 = /' \"$1\"\n")
    editor.chmod(0o755)
    for line in lines[1:]:
        # systemctl is told that no systemd runs there.
        debian.run("sh", "-ec", f"cd /root; export SYSTEMD_OFFLINE=1; {line}")
    assert "stream app-logs at https://kinesis.eu-west-1.amazonaws.com" in debian.run("penstock", "check")
