"""A command in a guest: status, output, input, environment, folder, user, arguments."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from guest import check, emulated, expect, main, popen, run  # noqa: E402


def test_streams_and_status():
    expect(run("sh", "-c", "echo out; echo err >&2; exit 42"), 42, b"out\n", b"err\n")
    expect(run("sh", "-c", "exit 255"), 255, b"", b"")


def test_many_statuses_in_one_guest():
    # the agent reports each status; here bash is the judge
    script = "for n in 0 1 2 41 125 126 127 128 130 254 255; do (exit $n); echo $?; done"
    r = run("bash", "-c", script)
    expect(r, 0, b"0\n1\n2\n41\n125\n126\n127\n128\n130\n254\n255\n", b"")


def test_death_by_signal():
    expect(run("sh", "-c", "kill -TERM $$"), 128 + 15, b"")
    expect(run("sh", "-c", "kill -KILL $$"), 128 + 9, b"")


def test_not_found_not_executable():
    expect(run("no-such-command"), 127, b"", says="no-such-command")
    expect(run("/etc/passwd"), 126, b"", says="/etc/passwd")
    expect(run("true", opts=("-q", "-w", "/no/such/folder")), 125, b"", says="/no/such/folder")
    expect(run("true", opts=("-q", "-u", "nobody-of-that-name")), 125, b"", says="nobody-of-that-name")


def test_environment_folder_user():
    env = dict(os.environ, FROM_HERE="inherited value")
    env.pop("NOT_SET", None)
    env["SKERRY_TEST_LEAK"] = "nothing else of this machine's environment gets in"
    opts = ("-q", "-e", "A=1 2", "-e", "B=", "-e", "A=x=y", "-e", "FROM_HERE", "-e", "NOT_SET", "-w", "/usr/lib")
    script = 'echo "$A|$B|${B-unset}|$FROM_HERE|${NOT_SET-unset}|${SKERRY_TEST_LEAK-unset}|$PWD"; pwd'
    r = run("sh", "-c", script, opts=opts, env=env)
    expect(r, 0, b"x=y|||inherited value|unset|unset|/usr/lib\n/usr/lib\n", b"")
    # protocol.md 8: the default user
    r = run("sh", "-c", 'id -un; echo $HOME; pwd; sudo -n id -u; test -w /app && echo app')
    expect(r, 0, b"app\n/home/app\n/home/app\n0\napp\n", b"")
    r = run("sh", "-c", "id -u; id -g; echo $HOME; pwd", opts=("-q", "-u", "root"))
    expect(r, 0, b"0\n0\n/root\n/root\n", b"")


def test_arguments_are_exact():
    args = ["", " ", "a b", "'", '"', "\\", "\n", "*", "$HOME", "--help", "-q", "--", "\x01\x7f", "ä€😀"]
    raw = [a.encode() for a in args] + [b"\xff\xfe not UTF-8"]
    r = run("printf", "%s\\0", *raw)
    expect(r, 0, b"".join(a + b"\0" for a in raw), b"")


def test_many_arguments():
    args = ["x" * 99 + str(i) for i in range(1000)]  # some 100 KB
    expect(run("sh", "-c", 'echo $# "${#1}"', "sh", *args), 0, b"1000 100\n", b"")


def test_output_is_byte_exact():
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 300)"
    expect(run("python3", "-c", script), 0, bytes(range(256)) * 300, b"")


def test_input_forms():
    expect(run("cat", data=b"from a pipe\0\xff\n"), 0, b"from a pipe\0\xff\n", b"")
    with tempfile.TemporaryFile() as f:
        f.write(b"skipped, from a file")
        f.seek(9)
        expect(run("cat", stdin=f), 0, b"from a file", b"")
    # /dev/null is not forwarded, nor is a terminal without -i: the command reads an end of file
    expect(run("sh", "-c", "cat; readlink /proc/self/fd/0"), 0, b"/dev/null\n", b"")
    master, slave = os.openpty()
    expect(run("cat", stdin=slave), 0, b"", b"")
    os.write(master, b"typed\n\x04")
    expect(run("cat", opts=("-q", "-i"), stdin=slave), 0, b"typed\n", b"")
    os.close(master)
    os.close(slave)


def test_unread_input():
    # a command that reads nothing, or a little, doesn't wait for its input
    expect(run("head", "-c", "5", data=b"hello" + b"x" * (4 << 20)), 0, b"hello", b"")
    r, w = os.pipe()
    expect(run("echo", "done", stdin=r), 0, b"done\n", b"")  # the writer never closes
    os.close(r)
    os.close(w)


def test_reader_goes_away():
    # as in `skerry run -- yes | head -1`: the command gets SIGPIPE
    p = popen("sh", "-c", "yes; echo $? >&2", opts=("-q",))
    line = p.stdout.readline()
    p.stdout.close()
    p.stdout = None
    err = p.stderr.read()
    p.wait()
    check(line == b"y\n" and err == b"141\n" and p.returncode == 0, "SIGPIPE: %r %r %r" % (line, err, p.returncode))


def test_streamed():
    # output comes while the command runs, input reaches it while it runs
    p = popen("sh", "-c", "echo ready; read line; echo got $line; read line; echo then $line", opts=("-q",),
              stdin=subprocess.PIPE)
    check(p.stdout.readline() == b"ready\n", "first line")
    p.stdin.write(b"one\n")
    p.stdin.flush()
    check(p.stdout.readline() == b"got one\n", "answer to the first line")
    p.stdin.write(b"two\n")
    p.stdin.flush()
    check(p.stdout.readline() == b"then two\n", "answer to the second line")
    out, err = p.communicate()
    check(p.returncode == 0 and not out and not err, "end: %r %r %r" % (p.returncode, out, err))


def test_closed_descriptors():
    # started with 0, 1 and 2 closed, nothing else may end up there
    r = subprocess.run(["sh", "-c", 'exec "$SKERRY" run -q -- sh -c "echo lost; exit 7" <&- >&- 2>&-'])
    check(r.returncode == 7, "status with closed descriptors: %d" % r.returncode)


def test_children_left_behind():
    # the command's end ends the run, though children hold its output open
    r = run("sh", "-c", "sleep 1000 & setsid sleep 1000 & echo done")
    expect(r, 0, b"done\n", b"")
    check(r.seconds < 100, "it took %.1f s" % r.seconds)


def test_timeout():
    r = run("sh", "-c", "echo begun; sleep 1000", opts=("-q", "--timeout", "2s"))
    expect(r, 124, b"begun\n")
    r = run("sh", "-c", "trap '' TERM; echo begun; while :; do sleep 1; done", opts=("-q", "--timeout", "1500ms"))
    expect(r, 124, b"begun\n")


def test_size_of_the_machine():
    r = run("sh", "-c", "nproc; awk '/MemTotal/{print ($2 > 400*1024 && $2 <= 512*1024)}' /proc/meminfo",
            opts=("-q", "--cpus", "1", "--memory", "512m"))
    expect(r, 0, b"1\n1\n", b"")


def test_root_is_writable_and_fresh():
    script = "sudo sh -c 'echo x > /usr/local/new && rm /etc/hostname && cat /usr/local/new'; touch ~/f && ls ~/f"
    expect(run("sh", "-c", script), 0, b"x\n/home/app/f\n", b"")
    expect(run("sh", "-c", "ls /usr/local/new ~/f 2>/dev/null; ls /etc/hostname"), 0, b"/etc/hostname\n")


def test_says_where_it_runs():
    if emulated():
        r = run("true", opts=())
        check(r.status == 0 and len(r.err.splitlines()) <= 2, "at most two lines about emulation", r)


if __name__ == "__main__":
    main(globals())
