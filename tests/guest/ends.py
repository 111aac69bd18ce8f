"""Every way a sandbox can end: its message and status, and that nothing of it is left. Runs where KVM works."""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import guest  # noqa: E402
from guest import check, collect, expect, main, popen, read_until, run, wait_for  # noqa: E402

SEED = int(os.environ.get("SKERRY_TEST_SEED", str(int(time.time()))))
FOLDER = None  # all that skerry may write to in this test, and a copy of it by which its processes are known


def set_up():
    """A binary, a runtime folder and a temporary folder that nobody else uses."""
    global FOLDER
    FOLDER = tempfile.mkdtemp(prefix="ends.")
    for name in ("runtime", "tmp"):
        os.mkdir(os.path.join(FOLDER, name), 0o700)
    guest.SKERRY = shutil.copy(guest.SKERRY, FOLDER)
    os.environ["XDG_RUNTIME_DIR"] = os.path.join(FOLDER, "runtime")
    os.environ["TMPDIR"] = os.path.join(FOLDER, "tmp")


def processes():
    """pid: (parent, argv0) of skerry's processes."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if not os.readlink("/proc/%s/exe" % pid).startswith(FOLDER):
                continue
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                argv0 = f.read().split(b"\0")[0]
            with open("/proc/%s/stat" % pid) as f:
                parent = int(f.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        found[int(pid)] = (parent, os.path.basename(argv0).decode(errors="replace"))
    return found


def files():
    """Files and sockets with a name that skerry might leave; what it measured of KVM is kept on purpose."""
    found = {name for name in os.listdir("/dev/shm") if "skerry" in name}
    for name in ("runtime", "tmp"):
        for folder, _, names in os.walk(os.path.join(FOLDER, name)):
            found.update(os.path.join(folder, n) for n in names if n != "kvm-speed")
    return found


def sockets():
    with open("/proc/net/unix") as f:
        names = [line.split(None, 7)[7].strip() for line in f if len(line.split()) > 7]
    return {name for name in names if FOLDER in name or name.startswith("@") and "skerry" in name}


def nothing_left(what, before):
    wait_for("no process is left after %s" % what, lambda: not processes(), 15)
    check(files() <= before[0], "files left after %s: %r" % (what, files() - before[0]))
    check(sockets() <= before[1], "sockets left after %s: %r" % (what, sockets() - before[1]))


def state():
    return files(), sockets()


def test_guest_ends_by_itself():
    before = state()
    escapes = "printf '\\033[31mred\\007\\r\\n' | sudo tee /dev/ttyS0 >/dev/null; sleep 0.5; "
    for script, says in (
            # what the guest said on its console is shown, but can't drive the terminal
            (escapes + "sudo poweroff", ("powered itself off", "\\x1b[31mred\\x07")),
            ("sudo reboot -f", ("restarted itself",)),
            ("echo c | sudo tee /proc/sysrq-trigger >/dev/null",
             ("kernel panicked", "Kernel panic - not syncing: sysrq triggered crash")),
            ("echo b | sudo tee /proc/sysrq-trigger >/dev/null", ("restarted itself",))):
        r = run("sh", "-c", "echo begun; " + script + "; sleep 300")
        expect(r, 125, b"begun\n", says=says)
        check(all(c >= 32 or c == 10 for c in r.err), "control characters are escaped", r)
        nothing_left(script, before)


def test_out_of_memory():
    before = state()
    eat = "import os\na = []\nwhile True: a.append(bytearray(os.urandom(1 << 12)) * 256)"
    r = run("python3", "-c", eat, opts=("-q", "--memory", "256m"))
    expect(r, 125, b"", says="guest ran out of memory (256 MiB); try --memory 512m")
    # a child is killed, the command goes on and says so itself
    r = run("bash", "-c", "python3 -c '%s'; echo status $?" % eat, opts=("-q", "--memory", "256m"))
    expect(r, 0, b"status 137\n")
    nothing_left("out of memory", before)


def test_tmpfs_full():
    script = "head -c 2G /dev/zero > /tmp/f; echo $?; rm /tmp/f; echo still here"
    r = run("bash", "-c", script, opts=("-q", "--memory", "512m"))
    expect(r, 0, b"1\nstill here\n", says="No space left on device")


def test_agent_survives_the_guests_root():
    script = "kill -9 1; kill -STOP 1; kill -TERM 1; for p in /proc/[0-9]*; do :; done; umount -l /proc; echo alive"
    expect(run("sudo", "bash", "-c", script), 0, b"alive\n", b"")


def wait_process(name, parent, seconds=60):
    found = []

    def look():
        found[:] = [pid for pid, (up, argv0) in processes().items() if argv0 == name and up == parent]
        return found

    wait_for("process " + name, look, seconds)
    return found[0] if found else None


def test_kill_vmm():
    before = state()
    p = popen("sh", "-c", "echo ready; sleep 1000", opts=("-q",))
    read_until(p.stdout, b"ready\n")
    os.kill(wait_process("skerry-vmm", p.pid), signal.SIGKILL)
    r = collect(p, patience=30)
    expect(r, 125, b"", says="process was killed")
    nothing_left("kill -9 of the vmm", before)


def test_kill_supervisor():
    before = state()
    p = popen("sh", "-c", "echo ready; sleep 1000", opts=("-q",))
    read_until(p.stdout, b"ready\n")
    p.kill()
    p.communicate()
    nothing_left("kill -9 of skerry run", before)


def test_kill_at_random_moments():
    print("seed %d" % SEED, flush=True)
    rng = random.Random(SEED)
    before = state()
    for i in range(int(os.environ.get("SKERRY_TEST_KILLS", "8"))):
        victim = rng.choice(("skerry-vmm", "supervisor"))
        delay = rng.choice((rng.uniform(0, 0.5), rng.uniform(0, 6)))
        p = popen("sh", "-c", "while :; do echo x; done | cat", opts=("-q",), stdout=subprocess.DEVNULL)
        what = "%d: kill -9 of %s after %.3f s" % (i, victim, delay)
        if victim == "supervisor":
            time.sleep(delay)
            p.kill()
        else:
            pid = wait_process(victim, p.pid)
            time.sleep(delay)
            if pid:
                os.kill(pid, signal.SIGKILL)
        r = collect(p, patience=30)
        if victim == "supervisor":
            check(r.status == -9, what, r)
        else:
            expect(r, 125, says="process was killed")
        nothing_left(what, before)


def test_memory_is_taken_as_it_is_used():
    p = popen("sh", "-c", "echo ready; sleep 1000", opts=("-q", "--memory", "4g"))
    read_until(p.stdout, b"ready\n")
    with open("/proc/%d/status" % wait_process("skerry-vmm", p.pid)) as f:
        resident = [int(line.split()[1]) >> 10 for line in f if line.startswith("VmRSS")]
    p.send_signal(signal.SIGTERM)
    collect(p)
    check(resident and resident[0] < 700, "a guest with 4 GiB holds %r MiB after its start" % resident)


def test_clock_follows_a_step():
    # what waking from suspend does to the host's clock; only where the machine is ours to set
    if not os.environ.get("SKERRY_EMULATED_HOST"):
        return
    p = popen("sh", "-c", "while sleep 0.2; do date +%s; done", opts=("-q",))
    before = int(p.stdout.readline())
    check(abs(before - time.time()) < 5, "guest and host agree at first: %d, %d" % (before, time.time()))
    time.clock_settime(time.CLOCK_REALTIME, time.time() + 7200)
    try:
        start = time.monotonic()
        while int(p.stdout.readline()) < before + 7000:
            if time.monotonic() - start > 10:
                break
        took = time.monotonic() - start
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - 7200)
    p.send_signal(signal.SIGTERM)
    collect(p)
    check(took < 2.5, "the guest's clock followed after %.1f s" % took)


def test_ordinary_end_leaves_nothing():
    before = state()
    for opts, status in ((("-q",), 3), (("-q", "--boot-timeout", "200ms"), 125)):
        r = run("sh", "-c", "exit 3" if status == 3 else "sleep 1000", opts=opts)
        expect(r, status, b"", says="didn't start within 200ms" if status == 125 else "")
        check(not processes(), "processes left: %r" % processes())
        nothing_left("%r" % (opts,), before)


if __name__ == "__main__":
    guest.move_near()
    set_up()
    try:
        main(globals())
    finally:
        shutil.rmtree(FOLDER)
