"""Kernels, images, sizes and folders that are wrong: one clear line with the remedy, status 125, nothing left."""
import os
import shutil
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from guest import check, main, run, skerry  # noqa: E402

STATE = os.path.join(os.environ.get("XDG_STATE_HOME") or ("/var/lib" if os.geteuid() == 0 else
                     os.path.expanduser("~/.local/state")), "skerry")
FOLDER = tempfile.mkdtemp(prefix="skerry-bad-input.", dir="/var/tmp")


def make(name, data, mode=0o644):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, mode)
    return path


def refused(opts, *says, env=None):
    """status 125, exactly one line, which has all of says."""
    r = run("echo", "it ran", opts=("-q", *opts), env=env)
    check(r.status == 125 and r.out == b"", "status 125 and no output: %r" % (opts,), r)
    lines = r.err.splitlines()
    check(len(lines) == 1 and lines[0].startswith(b"skerry: "), "one line: %r" % (opts,), r)
    for text in says:
        check(text.encode() in r.err, "the message has %r: %r" % (text, opts), r)


def elf(machine=62, phnum=1, filesz=4096, size=8192):
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000000, 64, 0, 0,
                                                         64, 56, phnum, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 4096, 0x1000000, 0x1000000, filesz, filesz, 4096)
    return (head + load).ljust(size, b"\0")


def test_kernel_files():
    kernel = os.path.join(STATE, "kernels/debian-13/vmlinux")
    with open(kernel, "rb") as f:
        good = f.read(8 << 20)
    refused(("--kernel", os.path.join(FOLDER, "none")), "none", "No such file")
    refused(("--kernel", FOLDER), FOLDER)
    refused(("--kernel", "/dev/null"), "/dev/null")
    refused(("--kernel", make("empty", b"")), "empty")
    refused(("--kernel", make("text", b"not a kernel at all\n" * 500)), "text")
    refused(("--kernel", make("truncated", good)), "truncated")
    refused(("--kernel", make("cut-head", good[:100])), "cut-head")
    refused(("--kernel", make("arm", elf(machine=183))), "arm")
    refused(("--kernel", make("no-segments", elf(phnum=0))), "no-segments")
    refused(("--kernel", make("beyond", elf(filesz=1 << 40))), "beyond")
    refused(("--kernel", make("arm-image", bytes(56) + b"ARM\x64" + bytes(4000))), "arm-image")
    zimage = bytearray(8192)
    zimage[0x1f1], zimage[0x1fe:0x200], zimage[0x202:0x206] = 4, b"\x55\xaa", b"HdrS"
    struct.pack_into("<H", zimage, 0x206, 0x20f)
    struct.pack_into("<II", zimage, 0x248, 0, 0xffffffff)
    refused(("--kernel", make("bad-bzimage", bytes(zimage))), "bad-bzimage")
    refused(("--kernel", "debian-31"), "debian-31", "debian-13")
    refused(("--kernel", "../../etc/passwd"), "passwd")
    refused(("--kernel", "a\nb\033[31m"), "a\\nb\\x1b[31m")


def test_images():
    refused(("--image", "debian-31"), "debian-31", "debian-13")
    refused(("--image", os.path.join(FOLDER, "none")), "none", "No such file")
    refused(("--image", make("empty-image", b"")), "empty-image")
    refused(("--image", make("zeros", bytes(1 << 20))), "zeros")
    with open(os.path.join(STATE, "images/debian-13/root.ext4"), "rb") as f:
        refused(("--image", make("cut-image", f.read(1 << 20))), "cut-image")
    refused(("--image", FOLDER), FOLDER)


def test_sizes():
    refused(("--memory", "64g"), "--memory", "this machine has only")


def test_no_setup():
    empty = os.path.join(FOLDER, "empty-state")
    os.mkdir(empty)
    refused((), "run: skerry setup", env=dict(os.environ, XDG_STATE_HOME=empty))


def test_newer_state():
    newer = os.path.join(FOLDER, "newer")
    os.makedirs(os.path.join(newer, "skerry"))
    with open(os.path.join(newer, "skerry/format.json"), "w") as f:
        f.write('{"format": 1000}\n')
    refused((), "newer", env=dict(os.environ, XDG_STATE_HOME=newer))


def test_no_home():
    env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_") and k != "HOME"}
    r = skerry("help", env=env)
    check(r.status == 0, "help without HOME", r)


def test_nothing_is_left():
    left = [n for n in os.listdir("/dev/shm") if "skerry" in n]
    check(not left, "files left: %r" % left)


if __name__ == "__main__":
    try:
        main(globals())
    finally:
        shutil.rmtree(FOLDER)
