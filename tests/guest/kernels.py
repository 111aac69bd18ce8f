"""Both stock Debian kernels, with one and with several CPUs."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from guest import check, expect, main, prepared, run, skip  # noqa: E402

KERNELS = {"debian-12": b"6.1.", "debian-13": b"6.12."}
UNSIGNED_MODULE = b"8192"  # Linux, admin-guide/tainted-kernels: their signatures are removed on the host
NO_PCI = b"PCI: Fatal: No config space access function found"  # right: the machine has none


def boot(name, cpus):
    script = "uname -r; nproc; cat /proc/sys/kernel/tainted; dmesg --level=emerg,alert,crit,err"
    r = run("sudo", "sh", "-c", script, opts=("-q", "--kernel", name, "--cpus", str(cpus)))
    expect(r, 0, err=b"")
    lines = [x for x in r.out.splitlines() if NO_PCI not in x]
    check(len(lines) >= 3 and lines[0].startswith(KERNELS[name]), "kernel version", r)
    check(len(lines) >= 3 and lines[1] == b"%d" % cpus, "number of CPUs", r)
    check(len(lines) >= 3 and lines[2] == UNSIGNED_MODULE, "kernel is not tainted otherwise", r)
    check(len(lines) == 3, "kernel reports no errors", r)


def test_debian_13():
    for cpus in (1, 2):
        boot("debian-13", cpus)


def test_four_cpus():
    boot("debian-13", 4)


def test_debian_12():
    if not prepared("--kernel", "debian-12"):
        skip("kernel debian-12 is not there; ./setup --tests makes it")
    for cpus in (1, 2):
        boot("debian-12", cpus)


if __name__ == "__main__":
    main(globals())
