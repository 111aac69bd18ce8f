"""Signals to skerry reach the command, then end the sandbox; so does the death of its parent."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from guest import SKERRY, check, collect, main, popen, read_until, wait_for  # noqa: E402

TRAP = "trap 'echo got %s; exit 9' %s; echo ready; while :; do sleep 0.1; done"


def started(script, **kw):
    p = popen("sh", "-c", script, opts=("-q",), **kw)
    read_until(p.stdout, b"ready\n")
    return p


def test_handled():
    for name in ("INT", "TERM", "HUP", "USR1"):
        p = started(TRAP % (name, name))
        p.send_signal(getattr(signal, "SIG" + name))
        r = collect(p)
        check(r.status == 9 and r.out == b"got %s\n" % name.encode(), "SIG%s reaches the command" % name, r)


def test_not_handled():
    p = started("echo ready; while :; do sleep 0.1; done")
    p.send_signal(signal.SIGTERM)
    check(collect(p).status == 128 + 15, "SIGTERM ends the command")


def test_whole_group():
    # as from a terminal: children get it too
    p = started("sh -c \"trap 'echo child; exit' HUP; echo ready; while :; do sleep 0.1; done\" & "
                "trap 'wait; exit 5' HUP; wait")
    p.send_signal(signal.SIGHUP)
    r = collect(p)
    check(r.status == 5 and r.out == b"child\n", "SIGHUP reaches the process group", r)


def test_ignored_then_killed():
    p = started("trap '' TERM INT; echo ready; while :; do sleep 0.1; done")
    start = time.monotonic()
    p.send_signal(signal.SIGTERM)
    r = collect(p)
    took = time.monotonic() - start
    check(r.status == 128 + 15 and 8 < took < 60, "killed after the grace, %.1f s" % took, r)


def test_second_interrupt_kills():
    p = started("trap '' INT; echo ready; while :; do sleep 0.1; done")
    start = time.monotonic()
    p.send_signal(signal.SIGINT)
    time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    r = collect(p)
    took = time.monotonic() - start
    check(r.status == 128 + 2 and took < 8, "a second SIGINT ends it at once, %.1f s" % took, r)


def test_during_boot():
    for delay in (0.05, 1.0):
        p = popen("sleep", "1000", opts=("-q",))
        time.sleep(delay)
        p.send_signal(signal.SIGTERM)
        r = collect(p)
        # -15: it came before the program's first instruction
        check(r.status in (128 + 15, -15), "SIGTERM %.2f s after the start" % delay, r)


def parent_that_dies(prefix=""):
    """A shell that starts skerry, says its pid, and is killed."""
    script = '%s "$SKERRY" run -q -- sh -c "echo ready; sleep 1000" 2>/dev/null & echo pid $!; wait' % prefix
    p = subprocess.Popen(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         env=dict(os.environ, SKERRY=SKERRY))
    seen = read_until(p.stdout, b"ready\n")
    pid = int(seen.split(b"pid ")[1].split()[0])
    p.kill()
    p.wait()
    return p, pid


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_parent_dies():
    p, pid = parent_that_dies()
    wait_for("skerry's end after its parent's", lambda: not alive(pid), 30)
    p.stdout.close()


def test_nohup_outlives_its_parent():
    p, pid = parent_that_dies("trap '' HUP;")
    time.sleep(3)
    check(alive(pid), "skerry under nohup outlives its parent")
    if alive(pid):
        os.kill(pid, signal.SIGTERM)
    wait_for("its end after SIGTERM", lambda: not alive(pid), 60)
    p.stdout.close()


if __name__ == "__main__":
    main(globals())
