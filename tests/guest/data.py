"""Data through standard input and output, judged by hash. data.py MIB: how much each way (64)."""
import hashlib
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from guest import check, main, popen  # noqa: E402

MIB = int(sys.argv.pop(1)) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 64
CHUNK = os.urandom(1 << 20)


def pump(stream, sums):
    """MIB megabytes, each different, into a pipe."""
    h = hashlib.sha256()
    for i in range(MIB):
        block = i.to_bytes(8, "little") + CHUNK[8:]
        h.update(block)
        stream.write(block)
    stream.close()
    sums.append(h.hexdigest())


def drain(stream):
    h, n = hashlib.sha256(), 0
    while block := stream.read(1 << 18):
        h.update(block)
        n += len(block)
    return h.hexdigest(), n


def test_in_and_out_at_once():
    sums = []
    p = popen("cat", opts=("-q",), stdin=subprocess.PIPE)
    writer = threading.Thread(target=pump, args=(p.stdin, sums))
    writer.start()
    got, n = drain(p.stdout)
    writer.join()
    err = p.stderr.read()
    check(p.wait() == 0 and not err, "cat: status %d, %r" % (p.returncode, err))
    check(n == MIB << 20, "%d of %d bytes came back" % (n, MIB << 20))
    check(got == sums[0], "they are the same")


def test_in():
    sums = []
    p = popen("sha256sum", opts=("-q",), stdin=subprocess.PIPE)
    pump(p.stdin, sums)
    p.stdin = None
    out, err = p.communicate()
    check(p.returncode == 0 and out.split()[:1] == [sums[0].encode()], "sha256sum: %r %r" % (out, err))


def test_out_apart():
    # both streams at once, interleaved by the guest, apart here
    script = ("import sys, threading\n"
              "def go(f, b):\n"
              "    for i in range(%d): f.write(bytes([b]) * 65536)\n"
              "t = threading.Thread(target=go, args=(sys.stderr.buffer, 69)); t.start()\n"
              "go(sys.stdout.buffer, 79); t.join()\n" % (MIB * 4))
    p = popen("python3", "-c", script, opts=("-q",))
    seen = []
    reader = threading.Thread(target=lambda: seen.append(p.stderr.read()))
    reader.start()
    out = p.stdout.read()
    reader.join()
    check(p.wait() == 0, "status %d" % p.returncode)
    check(out.count(b"O") == len(out) == MIB * 4 * 65536, "standard output: %d bytes" % len(out))
    check(seen[0].count(b"E") == len(seen[0]) == MIB * 4 * 65536, "standard error: %d bytes" % len(seen[0]))


def test_stopped_reader():
    # nobody reads: neither side's memory grows without bound, and a signal still arrives at once
    p = popen("sh", "-c", "cat /dev/zero", opts=("-q",))
    first = p.stdout.read(1)
    p.send_signal(15)
    total = 1
    while block := p.stdout.read(1 << 20):
        total += len(block)
    p.wait()
    p.stderr.close()
    check(first == b"\0" and p.returncode == 128 + 15, "status %d" % p.returncode)
    check(total < 16 << 20, "%d bytes were under way" % total)


if __name__ == "__main__":
    main(globals())
