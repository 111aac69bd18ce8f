#!/usr/bin/env python3
"""mkcpio.py INIT OUT: the initramfs (cpio "newc") with INIT as /init. Equal input, equal output."""
import sys

# name, mode, content, device (major, minor) of a node
DIRS = ['dev', 'proc', 'sys', 'lower', 'rw', 'newroot']


def entry(ino, name, mode, data=b'', rdev=(0, 0)):
    raw = name.encode() + b'\0'
    fields = [ino, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw), 0]
    head = b'070701' + b''.join(b'%08X' % f for f in fields) + raw
    head += b'\0' * (-len(head) % 4)
    return head + data + b'\0' * (-len(data) % 4)


def main():
    with open(sys.argv[1], 'rb') as f:
        init = f.read()
    out, ino = b'', 1
    for d in DIRS:
        out += entry(ino, d, 0o040755)
        ino += 1
    out += entry(ino, 'dev/console', 0o020600, rdev=(5, 1))
    out += entry(ino + 1, 'init', 0o100755, init)
    out += entry(0, 'TRAILER!!!', 0)
    out += b'\0' * (-len(out) % 512)
    with open(sys.argv[2], 'wb') as f:
        f.write(out)


main()
