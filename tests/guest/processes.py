"""Many processes at once, and real programs at work."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from guest import check, expect, main, run  # noqa: E402


def test_200_processes():
    script = 'for i in $(seq 200); do (read x < /proc/self/stat; sleep 2; echo $i) & done; wait; echo done'
    r = run("bash", "-c", script)
    expect(r, 0, err=b"")
    lines = r.out.split()
    check(sorted(lines[:-1], key=int) == [b"%d" % i for i in range(1, 201)] and lines[-1] == b"done",
          "200 processes", r)


def test_orphans_are_reaped():
    script = ("for i in $(seq 50); do (setsid sh -c 'sleep 0.2' &) ; done; sleep 2;"
              "ps -eo stat= | grep -c Z")
    expect(run("bash", "-c", script), 1, b"0\n", b"")


def test_python_at_work():
    script = """
import hashlib, json, sqlite3, subprocess, tempfile, threading, multiprocessing, os
db = sqlite3.connect(tempfile.mktemp())
db.execute("create table t (n integer, s text)")
db.executemany("insert into t values (?, ?)", ((i, str(i)) for i in range(2000)))
assert db.execute("select sum(n) from t").fetchone()[0] == 1999000
numbers = "\\n".join(map(str, range(500, 0, -1)))
out = subprocess.run(["sort", "-n"], input=numbers, text=True, capture_output=True).stdout
assert out.split() == [str(i) for i in range(1, 501)]
r, w = os.pipe()
p = multiprocessing.Process(target=lambda: os.write(w, hashlib.sha256(b"x" * 100000).hexdigest().encode()))
p.start(); p.join()
assert len(os.read(r, 100)) == 64 and p.exitcode == 0
print(json.dumps({"ok": True}))
"""
    expect(run("python3", "-c", script), 0, b'{"ok": true}\n', b"")


def test_node_at_work():
    script = """
const { Worker } = require('worker_threads'), fs = require('fs'), http = require('http');
const s = http.createServer((q, a) => a.end('hello ' + q.url)).listen(0, '127.0.0.1', () => {
  http.get({ port: s.address().port, path: '/x' }, r => {
    let body = ''; r.on('data', d => body += d); r.on('end', () => {
      s.close(); fs.writeFileSync('/tmp/f', body);
      new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true })
        .on('message', n => console.log(fs.readFileSync('/tmp/f', 'utf8'), n));
    });
  });
});
"""
    expect(run("node", "-e", script), 0, b"hello /x 42\n", b"")


def test_tools_of_the_image():
    script = ("set -e; cd /tmp; git init -q r; cd r; git config user.email a@b; git config user.name n;"
              "echo x > f; git add f; git commit -q -m m; git log --format=%s;"
              "npm --version >/dev/null; pip --version >/dev/null; curl --version >/dev/null; ssh -V 2>/dev/null;"
              "ip -o addr show lo | grep -c 127.0.0.1; less --version >/dev/null; vim.tiny --version >/dev/null;"
              "mkfs.ext4 -V 2>/dev/null; python3 -m venv --without-pip /tmp/v;"
              "/tmp/v/bin/python -c 'import sys; print(sys.prefix)'; sudo apt-get --version >/dev/null; ps -e >/dev/null; echo all")
    expect(run("bash", "-c", script), 0, b"m\n1\n/tmp/v\nall\n", b"")


if __name__ == "__main__":
    main(globals())
