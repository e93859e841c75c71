"""A clean Debian in a folder, by debootstrap, and the agent that was installed there."""

import functools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

from conftest import KEYS, ROOT, until

# There and here: chroot is in sbin.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def run(*words, timeout=120, check=True, **options):
    """Runs a command to its end and returns its output, with what it said of errors behind it."""
    result = subprocess.run(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        stdin=subprocess.DEVNULL, timeout=timeout, **options,
    )
    assert not check or result.returncode == 0, f"{words} ended with {result.returncode}:\n{result.stdout}"
    return result.stdout


@functools.cache
def built():
    """The package: PENSTOCK_DEB's, else what `make deb` builds."""
    if path := os.environ.get("PENSTOCK_DEB"):
        return pathlib.Path(path)
    run("make", "-C", ROOT, "deb", timeout=600)
    [path] = (ROOT / ".build-deb").glob("penstock_*.deb")
    return path


def debootstrap(folder, *packages):
    """Makes a minimal Debian of this machine's release, with some packages, from the mirror that this machine uses."""
    url, release = mirror()
    run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", release, folder, url, timeout=300)


class Debian:
    """A Debian in a folder, and commands that run in it."""

    def __init__(self, folder):
        self.folder = folder

    def __truediv__(self, path):
        return self.folder / str(path).lstrip("/")

    def command(self, *words, user=None):
        """A command line that runs `words` there, with a /proc of its own."""
        who = ["--userspec=penstock:penstock", "--groups=adm,systemd-journal"] if user else []
        return [
            "unshare", "--mount", "--propagation", "private", "sh", "-ec",
            'mount -t proc proc "$0/proc"; mount --bind /dev/null "$0/dev/null"; root=$0; exec chroot "$@"',
            str(self.folder), *who, str(self.folder), *(str(word) for word in words),
        ]

    def run(self, *words, user=None, **options):
        env = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        return run(*self.command(*words, user=user), env=env, **options)

    def install(self, package, *options):
        shutil.copy(package, self / "root")
        return self.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *options, f"/root/{package.name}")


def mirror():
    """Where this machine's packages come from, and its release."""
    release = re.search(r"^VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text(), re.M)[1]
    for path in sorted(pathlib.Path("/etc/apt").glob("sources.list*")) + sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*")):
        if not path.is_file():
            continue
        text = re.sub(r"^#.*$", "", path.read_text(), flags=re.M)
        # Of a stanza or of a line.
        for found in re.findall(r"(?:^URIs:\s*|^deb (?:\[.*?\] )?)(https?://\S+/debian/?)(?=\s)", text, re.M):
            return found, release
    return "http://deb.debian.org/debian", release


def configure(debian, url, stream):
    """What the administrator does: names the stream, and, here, where the embedded Kinesis is."""
    path = debian / "etc/penstock/penstock.toml"
    text = path.read_text()
    for key, value in (("stream", stream), ("region", "us-east-1"), ("endpoint", url)):
        text, count = re.subn(rf"^# {key} = .*$", f'{key} = "{value}"', text, flags=re.M)
        assert count == 1, key
    path.write_text(text)


class Agent:
    """The installed agent, as the unit starts it: by its user, with its groups, told to be ready through its socket."""

    def __init__(self, debian, *files):
        """Starts it, and waits until its inputs of files have looked: what appears from then on is read from its start."""
        self.debian = debian
        runtime = debian / "run/penstock"
        runtime.mkdir(exist_ok=True)
        user = debian / "var/lib/penstock"
        os.chown(runtime, user.stat().st_uid, user.stat().st_gid)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = debian / "run/notify"
        notify.unlink(missing_ok=True)
        self.socket.bind(str(notify))
        os.chmod(notify, 0o777)
        self.socket.settimeout(20)
        self.log = debian.folder.parent / f"agent-{time.monotonic_ns()}.log"
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                debian.command("penstock", "run", user=True), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={"PATH": PATH, "NOTIFY_SOCKET": "/run/notify", "HOME": "/nonexistent"} | KEYS,
            )
        try:
            assert b"READY=1" in self.socket.recv(65536)
            until(lambda: all(f"input={name} " in self.log.read_text() for name in files), 20, self.log.read_text)
        except BaseException:
            self.process.kill()
            raise AssertionError(f"the agent is not ready:\n{self.log.read_text()}") from None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(40) == 0, self.log.read_text()
        finally:
            self.process.kill()
            self.socket.close()
