"""The package under the real systemd: a Debian by debootstrap, booted in QEMU, where trial.sh goes through its life.

It takes five minutes where /dev/kvm cannot be used, since every instruction is emulated: `make test-boot` runs it.
"""

import os
import re
import shutil
import subprocess

import pytest
from debian import Debian, built, debootstrap, run

pytestmark = [
    pytest.mark.skipif("PENSTOCK_BOOT" not in os.environ, reason="emulates a machine for minutes: `make test-boot`"),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap, chroot and mount need root"),
]

UNIT = """[Unit]
After=basic.target rsyslog.service
[Service]
Type=oneshot
ExecStart=/trial/script
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
"""


@pytest.fixture
def disk(tmp_path):
    """An image, the kernel and the initial file system of a Debian that runs trial.sh and powers off."""
    root = tmp_path / "root"
    debootstrap(root, "logrotate", "rsyslog", "systemd", "procps")
    debian = Debian(root)
    debian.run("apt-get", "update", "-qq")
    debian.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "linux-image-cloud-amd64", "systemd-sysv", timeout=300)
    # It stays offline: the libraries come now, the package itself when it runs.
    package = built()
    debian.install(package)
    debian.run("apt-get", "purge", "-y", "-qq", "penstock")
    trial = root / "trial"
    trial.mkdir()
    shutil.copy(package, trial / "penstock.deb")
    newer = tmp_path / "newer"
    run("dpkg-deb", "-R", package, newer)
    control = newer / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.0-1", control.read_text(), flags=re.M))
    run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", newer, trial / "newer.deb")
    shutil.copy(os.path.join(os.path.dirname(__file__), "trial.sh"), trial / "script")
    (trial / "script").chmod(0o755)
    units = root / "etc/systemd/system"
    (units / "trial.service").write_text(UNIT)
    (units / "basic.target.wants").mkdir()
    (units / "basic.target.wants/trial.service").symlink_to("/etc/systemd/system/trial.service")
    # The console is the trial's.
    (units / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    debian.run("apt-get", "clean")
    image = tmp_path / "disk.img"
    run("mke2fs", "-q", "-t", "ext4", "-d", root, image, "1200M")
    [kernel], [initial] = (root / "boot").glob("vmlinuz-*"), (root / "boot").glob("initrd.img-*")
    shutil.copy(kernel, tmp_path / "kernel")
    shutil.copy(initial, tmp_path / "initial")
    shutil.rmtree(root)
    return image, tmp_path / "kernel", tmp_path / "initial"


def boot(disk, accelerator, timeout):
    """What the machine said on its console."""
    image, kernel, initial = disk
    command = [
        "qemu-system-x86_64", "-M", "q35", *accelerator, "-smp", "2", "-m", "768", "-nographic", "-no-reboot", "-nic", "none",
        "-kernel", kernel, "-initrd", initial, "-snapshot", "-drive", f"file={image},if=virtio,format=raw,cache=unsafe",
        "-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=false panic=-1",
    ]
    try:
        result = subprocess.run(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        said = result.stdout
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
    return said.decode(errors="replace")


def test_the_real_systemd_starts_reloads_activates_watches_and_removes_it(disk, figure):
    said = ""
    if os.access("/dev/kvm", os.W_OK):
        # In a nested machine it may stop before Linux has said a word.
        said = boot(disk, ["-accel", "kvm", "-cpu", "host,arch-capabilities=off"], 90)
    if "TRIAL" not in said:
        said = boot(disk, ["-accel", "tcg,thread=multi", "-cpu", "max"], 900)
    lines = re.findall(r"TRIAL (.*?)\r?\n", said)
    assert lines and lines[-1] == "done", said[-5000:]
    assert not [line for line in lines if line.startswith(("NOT OK", "waited in vain"))], said[-5000:]
    good = [line for line in lines if line.startswith("ok: ")]
    figure(f"{len(good)} checks; " + "; ".join(line for line in lines if line.startswith("status")))
    assert len(good) >= 25
