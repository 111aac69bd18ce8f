#!/usr/bin/env python3
"""The emulated host for real: QEMU, our kernel and init, the daemon, many commands, and every kind of death.

usage: SKERRY=build/skerry emu_host.py [CASE...]

Needs QEMU and the kernel that `skerry setup` makes for the emulated host; without them it says so and exits 77.
Each case gets a runtime folder of its own, so that it meets no other emulated host, and leaves nothing in it.
"""
import hashlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

MIB = 1 << 20
SKERRY = os.path.abspath(os.environ["SKERRY"])
BULK = int(os.environ.get("EMU_TEST_BULK_MIB", "16")) * MIB
PORTS = 16

# A shell's background jobs begin with it ignored, and so would skerry.
signal.signal(signal.SIGINT, signal.default_int_handler)


def state_folder():
    if os.environ.get("XDG_STATE_HOME"):
        return os.path.join(os.environ["XDG_STATE_HOME"], "skerry")
    return "/var/lib/skerry" if os.geteuid() == 0 else os.path.expanduser("~/.local/state/skerry")


class Failed(Exception):
    pass


def check(cond, what):
    if not cond:
        raise Failed(what)


def same(got, want, what):
    check(got == want, f"{what}: {got!r}, expected {want!r}")


class Host:
    """An emulated host in a runtime folder of its own."""

    def __init__(self, **env):
        self.runtime = tempfile.mkdtemp(prefix="emu-test-")
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.runtime, SKERRY_EMU_SCRATCH="1", SKERRY_EMU_IDLE="30s")
        self.env.pop("SKERRY_EMULATED_HOST", None)
        self.env.update(env)

    def start(self, *cmd, opts=(), **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        env = dict(self.env, **kw.pop("env", {}))
        return subprocess.Popen([SKERRY, "emu", *opts, "--", *cmd], env=env, **kw)

    def run(self, *cmd, timeout=120, data=None, **kw):
        if data is not None:
            kw["stdin"] = subprocess.PIPE
        p = self.start(*cmd, **kw)
        try:
            out, err = p.communicate(data, timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            raise Failed(f"{cmd}: no end after {timeout} s")
        return p.returncode, out, err

    def stop(self, *opts):
        return subprocess.run([SKERRY, "emu", "--stop", *opts], env=self.env, capture_output=True, timeout=60)

    def processes(self, name):
        """Processes of this host: the daemon and QEMU, by their open folder or parent."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    argv = f.read().split(b"\0")
                if name == "daemon" and argv[0] == b"skerry-emu":
                    if os.readlink(f"/proc/{pid}/fd/4").startswith(self.runtime):
                        found.append(int(pid))
                elif name == "qemu" and b"skerry-emulated-host" in argv:
                    with open(f"/proc/{pid}/stat") as f:
                        parent = int(f.read().rsplit(")", 1)[1].split()[1])
                    if parent in self.processes("daemon"):
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def wait_gone(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.processes("daemon") and not self.files():
                return
            time.sleep(0.05)
        raise Failed(f"left behind: processes {self.processes('daemon')}, files {self.files()}")

    def files(self):
        return [os.path.join(d, f) for d, dirs, files in os.walk(os.path.join(self.runtime, "skerry"))
                for f in files + dirs if f != "kvm-speed"]

    def close(self):
        self.stop("--force")
        self.wait_gone(20)
        shutil.rmtree(self.runtime)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone_soon(pid, seconds, what):
    end = time.monotonic() + seconds
    while alive(pid):
        check(time.monotonic() < end, f"{what}: process {pid} is still there")
        time.sleep(0.02)


# ---- one L1 for these ----

def case_basics(h):
    t = time.monotonic()
    same(h.run("sh", "-c", "echo out; echo err >&2; exit 42"), (42, b"out\n", b"err\n"), "streams and status")
    print(f"  first command, boot included: {time.monotonic() - t:.1f} s")
    times = []
    for _ in range(5):
        t = time.monotonic()
        same(h.run("true")[0], 0, "true")
        times.append(time.monotonic() - t)
    print(f"  a further command: {min(times) * 1e3:.0f} ms")
    same(h.run("sh", "-c", "kill -9 $$")[0], 137, "death by SIGKILL")
    same(h.run("sh", "-c", "kill -TERM $$")[0], 143, "death by SIGTERM")
    r = h.run("no-such-program")
    same(r[0], 127, "a program that isn't there")
    check(b"no-such-program" in r[2], f"its message: {r[2]}")
    same(h.run("/etc/passwd")[0], 126, "a file that is no program")
    same(h.run("cat", "/proc/sys/kernel/hostname")[1].strip().decode(), os.uname().nodename, "host name")
    check(b"svm" in h.run("cat", "/proc/cpuinfo")[1], "no SVM in L1")
    same(h.run("sh", "-c", "test -c /dev/kvm && test -c /dev/net/tun && echo yes")[1], b"yes\n", "devices")
    same(h.run("sh", "-c", "ulimit -l; cat /sys/class/net/lo/flags")[1], b"unlimited\n0x9\n", "limits, loopback")
    same(h.run("unshare", "-Ur", "id", "-u")[1], b"0\n", "user namespaces")
    same(h.run("sh", "-c", "id -u; echo $SKERRY_EMULATED_HOST")[1], b"0\n1\n", "root, and the mark")


def case_files(h):
    """Paths, environment and working directory mean this machine's; nothing of it can be written."""
    with tempfile.TemporaryDirectory(prefix="emu files, ") as d:
        with open(os.path.join(d, "a b"), "w") as f:
            f.write("first")
        same(h.run("sh", "-c", "pwd; cat 'a b'", cwd=d)[1].decode(), os.path.realpath(d) + "\nfirst", "a file in the cwd")
        with open(os.path.join(d, "a b"), "w") as f:
            f.write("second, longer")
        same(h.run("cat", os.path.join(d, "a b"))[1], b"second, longer", "a changed file")
        os.rename(os.path.join(d, "a b"), os.path.join(d, "c"))
        same(h.run("sh", "-c", "ls", cwd=d)[1], b"c\n", "a renamed file")
        check(h.run("sh", "-c", "echo x > c", cwd=d)[0] != 0, "this machine's files can be written")
    same(h.run("sh", "-c", 'echo "$A_NAME"', env={"A_NAME": "a 'value' ü\n\t"})[1].decode(), "a 'value' ü\n\t\n", "environment")
    same(h.run("sh", "-c", "echo hi > $TMPDIR/f && cat $TMPDIR/f && mktemp >/dev/null")[1], b"hi\n", "temporary files")
    same(h.run("sh", "-c", "touch $XDG_STATE_HOME/skerry/written $XDG_CACHE_HOME/skerry/written && echo ok")[1], b"ok\n",
         "state and cache")
    check(not os.path.exists(os.path.join(state_folder(), "written")), "L1 wrote to this machine's state folder")
    now = float(h.run("date", "+%s.%N")[1])
    check(abs(now - time.time()) < 1, f"L1's clock is off by {now - time.time():.3f} s")


def case_stdin(h):
    same(h.run("cat", data=b"through a pipe\n")[1], b"through a pipe\n", "stdin")
    same(h.run("cat", data=b"")[1], b"", "empty stdin")
    same(h.run("cat")[1], b"", "stdin is /dev/null")
    with tempfile.TemporaryFile() as f:
        f.write(b"a file")
        f.seek(0)
        same(h.run("cat", stdin=f)[1], b"a file", "stdin is a file")
    # A command that reads nothing ends all the same, with more than any buffer waiting.
    p = h.start("sh", "-c", "exit 3", stdin=subprocess.PIPE)
    try:
        p.stdin.write(bytes(8 * MIB))
        p.stdin.close()
    except BrokenPipeError:
        pass
    p.stdin = None
    p.communicate(timeout=60)
    same(p.returncode, 3, "status with unread stdin")


def case_bulk(h):
    data = os.urandom(MIB) * (BULK // MIB)
    want = hashlib.sha256(data).hexdigest()
    t = time.monotonic()
    r, out, _ = h.run("cat", data=data, timeout=600)
    spent = time.monotonic() - t
    same((r, len(out), hashlib.sha256(out).hexdigest()), (0, len(data), want), "bytes through stdin and stdout")
    print(f"  {BULK // MIB} MiB in and out: {spent:.1f} s, {BULK / MIB / spent:.0f} MiB/s")
    r, out, err = h.run("sh", "-c", f"head -c {4 * MIB} /dev/zero; head -c {3 * MIB} /dev/zero >&2", timeout=300)
    same((r, len(out), len(err)), (0, 4 * MIB, 3 * MIB), "both streams")


def case_broken_pipe(h):
    p = h.start("yes")
    check(p.stdout.read(100).startswith(b"y\ny\n"), "output of yes")
    p.stdout.close()
    p.stderr.close()
    same(p.wait(timeout=30), 141, "status after our reader has gone (SIGPIPE)")


def case_signals(h):
    script = 'trap "echo got; exit 7" %s; echo ready; while :; do sleep 0.05; done'
    for name in "INT", "TERM", "HUP":
        p = h.start("sh", "-c", script % name)
        same(p.stdout.readline(), b"ready\n", "ready")
        p.send_signal(getattr(signal, "SIG" + name))
        out, _ = p.communicate(timeout=30)
        same((p.returncode, out), (7, b"got\n"), "SIG" + name)
    p = h.start("sleep", "1000")
    time.sleep(0.5)
    p.terminate()
    same(p.wait(timeout=30), 143, "sleep and SIGTERM")


def case_many(h):
    results = [None] * 5

    def one(i):
        data = os.urandom(MIB) + bytes([i])
        results[i] = h.run("sh", "-c", f"sha256sum; exit {i}", data=data) + (hashlib.sha256(data).hexdigest(),)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, r in enumerate(results):
        same((r[0], r[1].split()[0].decode()), (i, r[3]), f"command {i} of five at once")
    # More than there are ports: the rest waits, and is told so.
    first = [h.start("sleep", "4") for _ in range(PORTS)]
    time.sleep(2)
    last = [h.start("echo", str(i)) for i in range(4)]
    for i, p in enumerate(last):
        out, err = p.communicate(timeout=60)
        same((p.returncode, out), (0, b"%d\n" % i), "a command that had to wait")
        check(b"waiting" in err, f"nothing was said about the wait: {err}")
    for p in first:
        same(p.wait(timeout=60), 0, "a command that holds a port")
        p.communicate()


def case_client_killed(h):
    """What a command started in L1 dies with it."""
    mark = f"9{os.getpid()}"
    p = h.start("sh", "-c", f"sleep {mark} & sleep {mark} & echo up; wait")
    same(p.stdout.readline(), b"up\n", "up")
    same(h.run("pgrep", "-c", "-x", "-f", f"sleep {mark}")[1], b"2\n", "processes before")
    p.kill()
    p.communicate()
    end = time.monotonic() + 20
    while h.run("pgrep", "-c", "-x", "-f", f"sleep {mark}")[1] != b"0\n":
        check(time.monotonic() < end, "processes of a killed command live on")
    # In the middle of a large transfer: the port is as good as new for the next.
    for _ in range(3):
        p = h.start("cat", stdin=subprocess.PIPE)
        threading.Thread(target=lambda f=p.stdin: feed(f), daemon=True).start()
        p.stdout.read(100000)
        p.kill()
        p.wait()
        same(h.run("echo", "fine"), (0, b"fine\n", b""), "the command after it")


def feed(f):
    try:
        while True:
            f.write(bytes(100000))
    except (BrokenPipeError, ValueError):
        pass


def connect(h):
    s = socket.socket(socket.AF_UNIX)
    os.chdir(os.path.join(h.runtime, "skerry", "emu", os.listdir(h.runtime + "/skerry/emu")[0]))
    s.connect("sock")
    os.chdir("/")
    return s


def closed_soon(s, seconds, what):
    s.settimeout(seconds)
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise Failed(what + ": the daemon keeps the connection")


def request(op):
    return b"SKEM" + struct.pack("<HHQQ", 1, op, 0, 0)


def case_hostile_client(h):
    """What the daemon may be sent by a process of the same user, and by others."""
    same(h.run("true")[0], 0, "a command")
    mode = os.stat(os.path.join(h.runtime, "skerry", "emu", os.listdir(h.runtime + "/skerry/emu")[0], "sock")).st_mode
    same(mode & 0o777, 0o600, "mode of the socket")
    for what, data in ("noise", os.urandom(5000)), ("another version", b"SKEM" + struct.pack("<HHQQ", 9, 1, 0, 0)), \
            ("no such op", request(77)), ("more than a request", request(1) + bytes(100)):
        s = connect(h)
        s.sendall(data)
        closed_soon(s, 10, what)
    # A session: bad frames, and a reset, which is the daemon's to send.
    for what, data in ("a bad frame", b"\xff" * 64), ("a reset", struct.pack("<IB3x", 16, 2) + bytes(16)):
        s = connect(h)
        s.sendall(request(1))
        s.settimeout(10)
        seen = b""
        while seen[-8:-4] != struct.pack("<I", 2):  # EMU_MSG_READY
            more = s.recv(100)
            check(more, "the session was refused")
            seen += more
        s.sendall(data)
        closed_soon(s, 10, what)
    # Half a request, and none, from more connections than are ever served.
    held = [connect(h) for _ in range(60)]
    for s in held[::2]:
        s.sendall(request(1)[:10])
    t = time.monotonic()
    same(h.run("echo", "fine")[1], b"fine\n", "a command meanwhile")
    for s in held:
        closed_soon(s, 10, "a request that never comes")
    check(time.monotonic() - t < 9, "silent connections are kept too long")
    if os.geteuid() == 0:
        where = os.path.join(h.runtime, "skerry", "emu", os.listdir(h.runtime + "/skerry/emu")[0])
        pid = os.fork()
        if not pid:
            os.chdir(where)
            os.setuid(65534)
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect("sock")
            except PermissionError:
                os._exit(0)
            os._exit(1)
        same(os.waitpid(pid, 0)[1], 0, "connecting as another user")
    # Root in L1 may fill the console: its file here stays small.
    same(h.run("sh", "-c", "head -c 200000 /dev/zero | tr '\\0' x > /dev/console")[0], 0, "noise on the console")
    where = os.path.join(h.runtime, "skerry", "emu", os.listdir(h.runtime + "/skerry/emu")[0])
    check(os.stat(where + "/console").st_size <= 16384 + 8, "the console's file grows")
    same(h.run("echo", "fine")[1], b"fine\n", "a command after all that")


def case_stop(h):
    p = h.start("sh", "-c", "echo up; sleep 1000")
    same(p.stdout.readline(), b"up\n", "up")
    r = h.stop()
    same(r.returncode, 1, "stop while a command runs")
    check(b"1 command is running" in r.stderr, f"its message: {r.stderr}")
    check(p.poll() is None, "the command was ended")
    same(h.stop("--force").returncode, 0, "stop --force")
    same(p.wait(timeout=20), 125, "status of the command")
    check(b"emulated host ended" in p.stderr.read(), "its message")
    h.wait_gone(10)


# ---- each needs an L1 of its own ----

def case_start_race(_):
    h = Host()
    procs = [h.start("echo", str(i)) for i in range(6)]
    qemus = set()
    while any(p.poll() is None for p in procs):
        qemus.update(h.processes("qemu"))
        time.sleep(0.05)
    for i, p in enumerate(procs):
        same((p.wait(), p.communicate()[0]), (0, b"%d\n" % i), "one of six that start at once")
    same(len(qemus), 1, "hosts that were started")
    h.close()


def case_idle_end(_):
    h = Host(SKERRY_EMU_IDLE="1s")
    same(h.run("sleep", "2")[0], 0, "a command longer than the idle time")
    t = time.monotonic()
    h.wait_gone(15)
    check(time.monotonic() - t > 0.5, "it ended before it was idle for a second")
    same(os.listdir(h.runtime + "/skerry"), [], "files")
    same(h.run("true")[0], 0, "a command after that")
    h.close()


def case_qemu_killed(_):
    h = Host()
    p = h.start("sh", "-c", "echo up; sleep 1000")
    same(p.stdout.readline(), b"up\n", "up")
    os.kill(h.processes("qemu")[0], signal.SIGKILL)
    same(p.wait(timeout=20), 125, "status when QEMU dies")
    err = p.stderr.read()
    check(b"emulated host ended" in err and b"killed by signal 9" in err, f"its message: {err}")
    h.wait_gone(10)
    same(h.run("echo", "again")[1], b"again\n", "the command after it")
    h.close()


def case_daemon_killed(_):
    h = Host()
    p = h.start("sh", "-c", "echo up; sleep 1000")
    same(p.stdout.readline(), b"up\n", "up")
    qemu = h.processes("qemu")[0]
    os.kill(h.processes("daemon")[0], signal.SIGKILL)
    same(p.wait(timeout=20), 125, "status when the daemon dies")
    gone_soon(qemu, 10, "QEMU outlives its daemon")
    check(h.files(), "a killed daemon can't have removed its files")
    same(h.run("echo", "again")[1], b"again\n", "the command after it")
    same(len(h.processes("daemon")), 1, "daemons")
    h.close()


def case_killed_at_start(_):
    """Commands that die while their host boots leave one that others can use, or none."""
    h = Host(SKERRY_EMU_IDLE="2s")
    for delay in 0.02, 0.3, 1.0:
        p = h.start("true")
        time.sleep(delay)
        p.kill()
        p.wait()
    p = h.start("true")
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    same(p.wait(timeout=5), 130, "SIGINT while it boots")
    same(h.run("echo", "fine"), (0, b"fine\n", b""), "the command after them")
    h.wait_gone(20)
    h.close()


def case_state_kept(_):
    """What is written to state and cache survives L1; this machine's folders don't change."""
    with tempfile.TemporaryDirectory(prefix="emu-state-") as d:
        os.makedirs(d + "/state/skerry")
        os.symlink(state_folder() + "/kernels", d + "/state/skerry/kernels")
        h = Host(XDG_STATE_HOME=d + "/state", XDG_CACHE_HOME=d + "/cache", SKERRY_EMU_SCRATCH="")
        same(h.run("sh", "-c", "echo kept > $XDG_STATE_HOME/skerry/f; mkdir $XDG_CACHE_HOME/skerry/d")[0], 0, "write")
        same(h.stop().returncode, 0, "stop")
        same(h.run("sh", "-c", "cat $XDG_STATE_HOME/skerry/f; ls $XDG_CACHE_HOME/skerry")[1], b"kept\nd\n", "read")
        # Killed without warning: the journal sees to it.
        same(h.run("sh", "-c", "echo more > $XDG_STATE_HOME/skerry/g; sync")[0], 0, "write")
        os.kill(h.processes("qemu")[0], signal.SIGKILL)
        h.wait_gone(10)
        # The state folder looks changed: a new key, the same disk.
        os.makedirs(d + "/state/skerry/images")
        same(h.run("sh", "-c", "cat $XDG_STATE_HOME/skerry/f $XDG_STATE_HOME/skerry/g")[1], b"kept\nmore\n", "read")
        # While one host has the disk, the next waits for it, and gets it as soon as it is idle.
        os.makedirs(d + "/state/skerry/images/new")
        same(h.run("ls", d + "/state/skerry/images")[1], b"new\n", "an object that was published since")
        same(len(h.processes("daemon")), 1, "hosts on one disk")
        # One that is in use is waited for, and ends with its last command, idle time or not.
        busy = h.start("sh", "-c", "echo up; sleep 6; echo late > $XDG_STATE_HOME/skerry/late")
        same(busy.stdout.readline(), b"up\n", "up")
        os.makedirs(d + "/state/skerry/images/newer")
        os.utime(d + "/state/skerry/images")
        r = h.run("cat", d + "/state/skerry/late")
        same(r[:2], (0, b"late\n"), "a command that needs the disk")
        same(r[2].count(b"waiting for the commands in another emulated host"), 1, "times that it said so")
        same(busy.wait(), 0, "the command it waited for")
        # Who needs nothing kept doesn't wait.
        busy = h.start("sh", "-c", "echo up; sleep 1000")
        same(busy.stdout.readline(), b"up\n", "up")
        os.makedirs(d + "/state/skerry/images/newest")
        r = subprocess.run([SKERRY, "run", "--accel", "emulated", "--image", "none-such", "--", "true"], env=h.env,
                           capture_output=True, stdin=subprocess.DEVNULL, timeout=100)
        same(r.returncode, 125, "status of a run that has no kernel in this state folder")
        check(b"not kept" in r.stderr and b"is not set up" in r.stderr, f"its messages: {r.stderr}")
        check(busy.poll() is None, "the command that has the disk was ended")
        busy.terminate()
        busy.communicate(timeout=60)
        disk = os.stat(d + "/state/skerry/emulated-host/disk.ext4")
        print(f"  the disk takes {disk.st_blocks / 2048:.1f} MiB of {disk.st_size >> 30} GiB")
        check(disk.st_blocks * 512 < 32 * MIB, "the disk is not sparse")
        h.close()
        same(sorted(os.listdir(d + "/state/skerry")), ["emulated-host", "images", "kernels"], "state folder here")


def case_no_kernel(_):
    with tempfile.TemporaryDirectory(prefix="emu-state-") as d:
        h = Host(XDG_STATE_HOME=d)
        r = h.run("true")
        same(r[0], 125, "status without a kernel")
        check(b"skerry setup" in r[2], f"its message: {r[2]}")
        # A kernel that is none: L1 doesn't come up, and its last words are shown.
        os.makedirs(d + "/skerry/kernels/emulated-host")
        for name in "vmlinux", "modules.cpio":
            with open(f"{d}/skerry/kernels/emulated-host/{name}", "wb") as f:
                f.write(b"\x7fELF" + bytes(4096))
        r = h.run("true", timeout=60)
        same(r[0], 125, "status with a broken kernel")
        check(b"QEMU failed" in r[2] and b"  | " in r[2], f"its message: {r[2]}")
        h.close()


def case_icount(_):
    h = Host()
    same(h.run("echo", "counted", opts=["--icount"], timeout=200)[1], b"counted\n", "a command")
    loop = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done"
    script = f"import subprocess,resource\nfor _ in range(3):\n b=resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime\n " \
             f"subprocess.run(['sh','-c','{loop}'])\n print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime-b)"
    out = h.run("python3", "-c", script, opts=["--icount"], timeout=200)[1].decode().split()
    print(f"  CPU seconds of the same loop: {' '.join(out)}")
    check(len(out) == 3, "three figures")
    h.close()


def case_chaos(_):
    """Only when asked for (EMU_TEST_CHAOS_S seconds): every process is killed at random moments, again and again."""
    seconds = int(os.environ.get("EMU_TEST_CHAOS_S", "0"))
    if not seconds:
        return
    h = Host(SKERRY_EMU_IDLE="2s")
    seed = int(time.time())
    rnd = random.Random(seed)
    end = time.monotonic() + seconds
    rounds = kills = 0
    while time.monotonic() < end:
        rounds += 1
        procs = [h.start("sh", "-c", "head -c 300000 /dev/urandom; sleep 0.3; echo done >&2; exit 9", stdout=subprocess.DEVNULL)
                 for _ in range(rnd.randint(1, 6))]
        time.sleep(rnd.choice([rnd.uniform(0, 0.5), rnd.uniform(0, 8)]))
        victims = rnd.choice([h.processes("daemon"), h.processes("qemu"), [p.pid for p in procs], []])
        for pid in victims[:rnd.randint(1, 2)]:
            try:
                os.kill(pid, rnd.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
                kills += 1
            except ProcessLookupError:
                pass
        for p in procs:
            try:
                _, err = p.communicate(timeout=100)
            except subprocess.TimeoutExpired:
                raise Failed(f"seed {seed}, round {rounds}: a command hangs")
            check(p.returncode in (9, 125, 130, 143, -9, -2, -15), f"seed {seed}: status {p.returncode}: {err}")
            check(p.returncode != 9 or b"done\n" in err, f"seed {seed}: status 9, yet not done: {err}")
        check(len(h.processes("qemu")) <= 1, "more than one QEMU")
    same(h.run("echo", "fine")[1], b"fine\n", "a command after all that")
    print(f"  {rounds} rounds, {kills} kills")
    h.wait_gone(30)
    h.close()


SHARED = [case_basics, case_files, case_stdin, case_bulk, case_broken_pipe, case_signals, case_many,
          case_client_killed, case_hostile_client, case_stop]
ALONE = [case_start_race, case_idle_end, case_qemu_killed, case_daemon_killed, case_killed_at_start, case_state_kept,
         case_no_kernel, case_icount, case_chaos]


def main():
    if not shutil.which("qemu-system-x86_64") or not os.path.exists(state_folder() + "/kernels/emulated-host/vmlinux"):
        print("skipped: needs qemu-system-x86_64 and the emulated host's kernel (skerry setup)")
        return 77
    wanted = sys.argv[1:]
    shared = Host()
    failed = 0
    for case in SHARED + ALONE:
        name = case.__name__[5:]
        if wanted and name not in wanted:
            continue
        t = time.monotonic()
        try:
            case(shared)
            print(f"ok      {name} ({time.monotonic() - t:.1f} s)", flush=True)
        except (Failed, subprocess.TimeoutExpired) as e:
            failed += 1
            print(f"FAILED  {name}: {e}", flush=True)
    shared.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
