"""skerry setup, as far as it goes without a package mirror: what is ready, wrong names, bad folders, waiting, stopping.

State lies in folders of the test's own; "mirrors" and proxies are sockets of the test that never answer.
"""
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import guest  # noqa: E402
from guest import SKERRY, check, collect, expect, skerry, wait_for  # noqa: E402


class Folders:
    """State and cache folders that are gone afterwards."""

    def __enter__(self):
        self.temp = tempfile.TemporaryDirectory(prefix="skerry-test-setup.")
        self.base = self.temp.name
        self.state = self.base + "/skerry"
        self.env = dict(os.environ, XDG_STATE_HOME=self.base, XDG_CACHE_HOME=self.base + "/cache")
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            self.env.pop(name, None)
        return self

    def __exit__(self, *_):
        self.temp.cleanup()

    def start(self, *args, **more):
        return subprocess.Popen([SKERRY, "setup", *args], env=dict(self.env, **more), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *args, **more):
        return collect(self.start(*args, **more))

    def objects(self):
        return [e for e in os.listdir(self.state + "/kernels") if not e.startswith(".")]


def listener():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(16)
    s.settimeout(60)
    return s, "http://127.0.0.1:%d" % s.getsockname()[1]


def processes_naming(text):
    """Processes whose command line contains text."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if text.encode() in f.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def test_ready():
    r = skerry("setup")
    expect(r, 0, b"")
    check(r.err.endswith(b" run -- uname -a\n") and r.err.count(b"\n") == 1, "one line", r)
    check(r.seconds < 2, "skipped at once: %.1f s" % r.seconds)
    expect(skerry("setup", "-q", "--kernel", "debian-13", "--image", "debian-13"), 0, b"", b"")
    r = skerry("setup", "--needs")
    check(r.out in (b"kvm\n", b"emulated\n") and r.status == 0, "kvm or emulated", r)


def test_names():
    with Folders() as f:
        expect(f.run("--kernel", "debian-31"), 2, b"",
               b"skerry: --kernel 'debian-31': can't be made; did you mean 'debian-13'?\n")
        expect(f.run("--image", "windows"), 2, b"", b"skerry: --image 'windows': can't be made; there is: debian-13\n")
        expect(f.run("more"), 2, b"", says="argument 'more' is one too many")
        check(not os.path.exists(f.state), "nothing made")


def test_newer_state():
    with Folders() as f:
        os.mkdir(f.state)
        with open(f.state + "/format.json", "w") as j:
            j.write('{"format": 99}')
        newer = "state folder '%s': has format 99, made by a newer skerry" % f.state
        expect(f.run(), 1, b"", says=newer)
        p = subprocess.Popen([SKERRY, "run", "--", "true"], env=f.env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        expect(collect(p), 125, b"", says=newer)
        check(os.listdir(f.state) == ["format.json"], "untouched: %r" % os.listdir(f.state))


def test_no_home():
    env = {k: v for k, v in os.environ.items() if k != "HOME" and not k.startswith("XDG_")}
    as_user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    expect(skerry("setup", env=env, **as_user), 1, b"",
           b"skerry: state folder: HOME is not set; set HOME or XDG_STATE_HOME to the absolute path of a folder of "
           b"yours\n")
    expect(skerry("setup", env=dict(env, HOME="/proc"), **as_user), 1, b"", says="state folder '/proc/.local/state/skerry': ")


def test_full_and_read_only():
    if os.geteuid() != 0:
        return  # needs mounts
    with Folders() as f:
        script = ("mount -t tmpfs -o size=16k,nr_inodes=%s t " + f.base + " && mount -o remount,%s " + f.base + " && exec " +
                  SKERRY + " setup --kernel debian-13")
        for inodes, mode, says in (("2", "rw", "No space left on device; free some space"),
                                   ("9", "ro", "Read-only file system; make its disk writable")):
            p = subprocess.Popen(["unshare", "-m", "sh", "-c", script % (inodes, mode)], env=f.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            expect(collect(p), 1, b"", says=["skerry: state folder '%s': " % f.state, says])


def test_waits():
    with Folders() as f:
        os.mkdir(f.state)
        with open(f.state + "/setup.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            p = f.start("--kernel", "debian-13")
            guest.read_until(p.stderr, b"another 'skerry setup' is at work: waiting for it\n")
            p.send_signal(signal.SIGINT)
            expect(collect(p), 130, b"", b"skerry: setup: stopped; run it again to go on\n")


def test_no_mirror():
    with Folders() as f:
        s, url = listener()
        s.close()
        r = f.run("--kernel", "debian-13", "--mirror", url)
        expect(r, 1, b"", says=["skerry: kernel debian-13: can't fetch packages (", "Could not connect",
                                "check the network and the http_proxy variable, or name a mirror: --mirror URL\n"])
        check(os.listdir(f.state + "/kernels") == [], "nothing left")


def test_proxy():
    with Folders() as f:
        s, url = listener()
        p = f.start("--kernel", "debian-13", "--mirror", "http://mirror.invalid/debian", http_proxy=url)
        c, _ = s.accept()
        request = c.recv(4096)
        check(request.startswith(b"GET http://mirror.invalid/debian/dists/trixie/"), "asked the proxy: %r" % request)
        p.send_signal(signal.SIGTERM)
        expect(collect(p), 143, b"", says="skerry: setup: stopped; run it again to go on\n")


def test_stopped():
    with Folders() as f:
        for sig, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)):
            s, url = listener()
            p = f.start("--kernel", "debian-13", "--mirror", url)
            s.accept()
            check(len(processes_naming(url)) > 1, "mmdebstrap is at work")
            p.send_signal(sig)
            r = collect(p)
            check(r.status == status, "status %d, expected %d" % (r.status, status), r)
            wait_for("no process is left after signal %d" % sig, lambda: not processes_naming(url), 10)
            check(f.objects() == [], "no object")
            s.close()
        check(os.listdir(f.state + "/kernels") != [], "what kill -9 left")
        # the next one clears it away
        s, url = listener()
        s.close()
        expect(f.run("--kernel", "debian-13", "--mirror", url), 1)
        check(os.listdir(f.state + "/kernels") == [], "nothing left: %r" % os.listdir(f.state + "/kernels"))


if __name__ == "__main__":
    if subprocess.run(["sh", "-c", "command -v mmdebstrap"], stdout=subprocess.DEVNULL).returncode:
        guest.skip("mmdebstrap is not installed")
    guest.prepared = lambda *opts: True  # no guest is needed
    guest.main(globals())
