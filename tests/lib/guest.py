"""What tests that boot guests share: running skerry, checks, and running a whole script where KVM works.

A test is a script with functions test_*(); main() runs them in order, prints what failed, and exits 1 if any did, or
77 (skipped) if kernel or image were never prepared. Where KVM can't run Linux, skerry itself carries on in its emulated
host; move_near() moves the whole script there, for tests that look at skerry's processes and files.
"""
import os
import signal
import subprocess
import sys
import time
import traceback

SKERRY = os.path.abspath(os.environ["SKERRY"])
INSIDE = "SKERRY_EMULATED_HOST"  # set in the emulated host
# A shell's background jobs, and nohup's, begin with these ignored, and so would skerry.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

PATIENCE = 240                   # seconds that no single run of a test may take

failures = 0


class Result:
    def __init__(self, args, status, out, err, seconds):
        self.args, self.status, self.out, self.err, self.seconds = args, status, out, err, seconds

    def __str__(self):
        return "%r: status %d after %.1f s\n  stdout %r\n  stderr %r" % (
            self.args, self.status, self.seconds, self.out[-600:], self.err[-1200:])


def popen(*args, opts=(), skerry="run", **kw):
    """skerry run OPTS -- ARGS; standard input is /dev/null unless given."""
    argv = [SKERRY, skerry, *opts, "--", *args]
    kw.setdefault("stdin", subprocess.DEVNULL)
    kw.setdefault("stdout", subprocess.PIPE)
    kw.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen(argv, **kw)


def collect(p, data=None, patience=PATIENCE):
    start = time.monotonic()
    try:
        out, err = p.communicate(data, timeout=patience)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        err = (err or b"") + b"\n(killed by the test: it took longer than %d s)" % patience
    return Result(p.args, p.returncode, out or b"", err or b"", time.monotonic() - start)


def run(*args, opts=("-q",), data=None, patience=PATIENCE, **kw):
    if data is not None:
        kw["stdin"] = subprocess.PIPE
    return collect(popen(*args, opts=opts, **kw), data, patience)


def skerry(*args, **kw):
    """skerry with exactly these arguments."""
    kw.setdefault("stdin", subprocess.DEVNULL)
    p = subprocess.Popen([SKERRY, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)
    return collect(p)


def check(ok, what, result=None):
    global failures
    if ok:
        return
    failures += 1
    frame = sys._getframe(1)
    while frame.f_code.co_name.startswith("expect"):
        frame = frame.f_back
    while frame.f_back and not frame.f_code.co_name.startswith("test_") and frame.f_back.f_code.co_name != "main":
        frame = frame.f_back  # the line of the test, not of a helper
    print("%s:%d: %s: failed: %s" % (os.path.basename(frame.f_code.co_filename), frame.f_lineno,
                                     frame.f_code.co_name, what[:2000]), flush=True)
    if result is not None:
        print("  " + str(result).replace("\n", "\n  "), flush=True)


def expect(result, status=0, out=None, err=None, says=None):
    """Check status, exact output, and texts that standard error must contain (says) or be (err)."""
    check(result.status == status, "status %d, expected %d" % (result.status, status), result)
    if out is not None:
        check(result.out == out, "standard output, expected %r" % out[:200], result)
    if err is not None:
        check(result.err == err, "standard error, expected %r" % err[:200], result)
    for text in [says] if isinstance(says, str) else says or []:
        check(text.encode() in result.err, "standard error lacks %r" % text, result)


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            check(False, "%s within %d s" % (what, seconds))
            return False
        time.sleep(0.02)
    return True


def read_until(stream, text, seconds=PATIENCE):
    """Read a pipe until it has said text; returns everything read."""
    os.set_blocking(stream.fileno(), False)
    seen = b""

    def more():
        nonlocal seen
        seen += stream.read() or b""
        return text in seen

    wait_for("%r on a pipe" % text, more, seconds)
    os.set_blocking(stream.fileno(), True)
    return seen


def prepared(*opts):
    """Whether a guest starts with these options; False if kernel or image were never made."""
    r = run("true", opts=("-q", *opts))
    if r.status and b"skerry setup" in r.err:
        return False
    expect(r, 0, b"", b"")
    return True


def skip(why):
    print("skipped: " + why, flush=True)
    sys.exit(1 if failures else 77)


def emulated():
    """Whether skerry goes to its emulated host on this machine."""
    r = run("true", opts=())
    if r.status and b"skerry setup" in r.err:
        skip("'skerry setup' was not run")
    if r.status:
        print("a guest could not be started\n  " + str(r))
        sys.exit(1)
    return b"emulated" in r.err


def move_near():
    """Run this script in the emulated host, if that is where guests run."""
    if os.environ.get(INSIDE) or not emulated():
        return
    sys.stdout.flush()
    env = "SKERRY=" + SKERRY
    os.execv(SKERRY, [SKERRY, "emu", "--", "/usr/bin/env", env, "/usr/bin/python3", *sys.argv])


def main(tests):
    if not prepared():
        skip("'skerry setup' was not run")
    if failures:
        sys.exit(1)
    for name, test in list(tests.items()):
        if not name.startswith("test_") or (len(sys.argv) > 1 and name not in sys.argv[1:]):
            continue
        start = time.monotonic()
        before = failures
        try:
            test()
        except Exception:
            traceback.print_exc(file=sys.stdout)
            check(False, "exception")
        print("%s %s (%.1f s)" % ("ok" if failures == before else "FAILED", name,
                                  time.monotonic() - start), flush=True)
    sys.exit(1 if failures else 0)
