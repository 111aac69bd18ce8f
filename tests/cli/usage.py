"""The command line itself, without a guest: help, version, wrong options; messages and statuses."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import guest  # noqa: E402
from guest import SKERRY, check, expect, skerry  # noqa: E402

# arguments, status, message on standard error after "skerry: "
WRONG = (
    (["rnu"], 2, "no command 'rnu'; did you mean 'run'?"),
    (["frobnicate"], 2, "no command 'frobnicate'; 'skerry help' lists them"),
    (["\033[31mred"], 2, "no command '\\x1b[31mred'; 'skerry help' lists them"),
    (["help", "rnu"], 2, "no command 'rnu'; 'skerry help' lists them"),
    (["version", "x"], 2, "argument 'x' is one too many; usage: skerry version [OPTION...]"),
    (["run"], 125, "too few arguments; usage: skerry run [OPTION...] [--] CMD [ARG...]"),
    (["run", "--"], 125, "too few arguments; usage: skerry run [OPTION...] [--] CMD [ARG...]"),
    (["run", "--memroy", "1g", "true"], 125, "no option --memroy; did you mean --memory?"),
    (["run", "-Z", "true"], 125, "no option -Z; 'skerry run --help' lists them"),
    (["run", "--memory", "2x", "true"], 125, "--memory '2x': not a size such as 512m or 2g"),
    (["run", "--memory", "-1", "true"], 125, "--memory '-1': not a size such as 512m or 2g"),
    (["run", "--memory", "31m", "true"], 125, "--memory '31m': must be from 32 MiB to 64 GiB"),
    (["run", "--memory", "99999999999999999999g", "true"], 125,
     "--memory '99999999999999999999g': must be from 32 MiB to 64 GiB"),
    (["run", "--cpus", "0", "true"], 125, "--cpus '0': must be from 1 to 32"),
    (["run", "--cpus", "33", "true"], 125, "--cpus '33': must be from 1 to 32"),
    (["run", "--cpus", "two", "true"], 125, "--cpus 'two': not a whole number"),
    (["run", "--timeout", "soon", "true"], 125, "--timeout 'soon': not a time such as 30s or 5m"),
    (["run", "--timeout", "0s", "true"], 125, "--timeout '0s': must be at least 1ms"),
    (["run", "--timeout"], 125, "--timeout: needs a value: --timeout TIME"),
    (["run", "--quiet=yes", "true"], 125, "--quiet: takes no value"),
    (["run", "--accel", "magic", "true"], 125, "--accel 'magic': must be one of auto, kvm, emulated, emulated,icount"),
    (["run", "--boot-trace=xml", "true"], 125, "--boot-trace 'xml': must be one of off, text, json"),
    (["run", "-e", "=x", "true"], 125, "--env '=x': has no name; write NAME=VALUE"),
    (["run", "-e", "", "true"], 125, "--env '': has no name; write NAME=VALUE"),
    (["run", "-w", "", "true"], 125, "--workdir: must not be empty"),
    (["run", "--no-confine", "--require-confinement", "true"], 125,
     "--no-confine and --require-confinement exclude each other"),
    (["run", "--" + "x" * 100000, "true"], 125, "no option --" + "x" * 63),
)


def test_wrong():
    for args, status, message in WRONG:
        r = skerry(*args)
        check(r.status == status, "status %d, expected %d" % (r.status, status), r)
        check(r.out == b"", "nothing on standard output", r)
        lines = r.err.decode().split("\n")
        check(len(lines) == 2 and lines[0].startswith("skerry: " + message), "message %r" % message, r)


def test_help():
    commands = skerry("help").out.split(b"Commands:\n")[1].split(b"\n\n")[0].splitlines()
    check(len(commands) >= 3, "list of commands: %r" % commands)
    for line in commands:
        name = line.split()[0].decode()
        for args in ((name, "--help"), (name, "-h"), ("help", name)):
            r = skerry(*args)
            expect(r, 0, err=b"")
            check(b"Usage: skerry %s" % name.encode() in r.out, "usage of %s" % name, r)
            check(all(len(x) <= 80 for x in r.out.splitlines()), "lines of at most 80 columns: %s" % name, r)
    for args in (("--help",), ("-h",), ("help",)):
        check(skerry(*args).out == skerry("help").out, "%r" % (args,))
    r = skerry()
    check(r.status == 2 and not r.out and b"Usage: skerry COMMAND" in r.err, "no command", r)


def test_version():
    for args in (("--version",), ("-V",), ("version",)):
        r = skerry(*args)
        expect(r, 0, err=b"")
        check(r.out.startswith(b"skerry 0."), "version", r)


def test_output_that_cannot_be_written():
    with open("/dev/full", "wb") as full:
        p = subprocess.run([SKERRY, "help"], stdout=full, stderr=subprocess.PIPE)
    check(p.returncode == 1 and b"No space left on device" in p.stderr, "help >/dev/full: %r" % p)
    p = subprocess.run(["sh", "-c", '"$0" help >&- 2>&-', SKERRY])
    check(p.returncode in (0, 1), "help with nothing open: %r" % p)


if __name__ == "__main__":
    guest.prepared = lambda *opts: True  # no guest is needed
    guest.main(globals())
