#!/usr/bin/env python3
"""Writes the seeds of fuzz-vsock (its head comment has the format) and fuzz-dev-vsock: corpus/NAME/seed-*.

Run it in this folder after a change of the format; the files are committed.
"""
import os
import struct

(PACKET, LIE, RAW, RX, TAKE, EVENT, OFFER, CONNECT, WRITE, READ, SHUT, CLOSE, TURN, TIME, RESET) = range(15)
REQUEST, RESPONSE, RST, SHUTDOWN, RW, UPDATE, ASK = range(1, 8)
RCV, SEND, BOTH = 1, 2, 3


def packet(op, length=0, flags=0, ports=0, alloc=0x40000, fwd=0):
    return (struct.pack('<BBBBH', PACKET, ports, op, flags, length) + alloc.to_bytes(3, 'little') +
            struct.pack('<H', fwd))


def lie(op, length=0, payload=0, kind=1, cids=0, ports=0):
    return (struct.pack('<BBBBH', LIE, ports, op, 0, length) + (0x40000).to_bytes(3, 'little') +
            struct.pack('<HHBB', 0, payload, kind, cids))


def raw(q, flags, gpa, length):
    return struct.pack('<BBBII', RAW, q, flags, gpa, length)


def rx(n=32, size=4140):
    return struct.pack('<BBH', RX, n - 1, size)


def turn(n=4):
    return bytes([TURN, n])


def offer(port=0):
    return bytes([OFFER, port])


def connect(port=0):
    return bytes([CONNECT, port])


def end(op, which, arg=0):
    return struct.pack('<BBH', op, which, arg) if op in (WRITE, READ) else bytes([op, which] + [arg] * (op == SHUT))


TAKEN, TIMED = bytes([TAKE]), bytes([TIME])
OPENED = rx() + offer() + packet(REQUEST) + turn() + TAKEN


def vsock_seeds():
    return {
        'refused': rx() + packet(REQUEST) + turn() + TAKEN,
        'echo': OPENED + packet(RW, 100) + turn() + end(READ, 0, 100) + end(WRITE, 0, 5000) + turn() + TAKEN,
        'connect': rx() + connect() + turn() + TAKEN + packet(RESPONSE, ports=8) + end(WRITE, 0, 10) + turn() +
        packet(RW, 10, ports=8) + turn() + end(READ, 0, 10) + TAKEN,
        'connect-refused': rx() + connect() + turn() + TAKEN + packet(RST, ports=8) + turn(),
        'connect-timeout': rx() + connect(0x80) + turn() + TIMED + turn() + TAKEN,
        'guest-half': OPENED + packet(RW, 60000) + packet(SHUTDOWN, flags=SEND) + turn() + end(READ, 0, 65535) +
        end(WRITE, 0, 9) + turn() + end(CLOSE, 0) + turn() + TAKEN + packet(RST),
        'host-half': OPENED + end(WRITE, 0, 300) + end(SHUT, 0, 1) + turn() + TAKEN + packet(RW, 5) + turn() + TIMED +
        turn() + packet(SHUTDOWN, flags=BOTH) + turn() + TAKEN,
        'host-deaf': OPENED + end(SHUT, 0, 0) + packet(RW, 5) + turn() + packet(RW, 5) + turn() + TAKEN,
        'guest-deaf': OPENED + packet(SHUTDOWN, flags=RCV) + turn() + end(WRITE, 0, 9) + turn() + packet(RW, 9) + turn(),
        'host-close': OPENED + end(WRITE, 0, 60000) + end(CLOSE, 0) + turn() + TAKEN + TIMED + turn() + TAKEN,
        'close-unread': OPENED + packet(RW, 9) + turn() + end(CLOSE, 0) + turn() + TAKEN,
        'overrun': OPENED + packet(RW, 65535) * 16 + turn() + TAKEN,
        'slow-host': offer(0x80) + rx() + packet(REQUEST) + packet(RW, 65535) * 3 + turn() + end(READ, 0, 65535) + turn() +
        end(READ, 0, 65535) + turn() + packet(RST) + turn() + end(READ, 0, 65535) + turn(),
        'no-credit': rx() + offer() + packet(REQUEST, alloc=10) + end(WRITE, 0, 100) + turn() + TAKEN + TIMED + turn() +
        TAKEN + packet(UPDATE, alloc=10, fwd=10) + turn() + TAKEN,
        'credit-back': rx(1) + offer() + packet(REQUEST) + end(WRITE, 0, 60000) + turn() + packet(UPDATE, alloc=1) +
        turn() + rx() + turn() + TAKEN + packet(UPDATE, alloc=70000) + turn() + TAKEN,
        'no-rx': offer() * 4 + b''.join(packet(REQUEST, ports=i) for i in range(4)) +
        b''.join(end(WRITE, i, 60000) for i in range(4)) + turn() + rx(32, 100) + turn() + TAKEN + rx() + turn() + TAKEN,
        'flood': packet(RW, 1) * 120 + rx() + turn() + TAKEN + rx() + turn() + TAKEN,
        'ask': OPENED + packet(ASK) * 40 + turn() + TAKEN,
        'strange': OPENED + b''.join(packet(op) + turn() + offer() + packet(REQUEST) for op in (0, 1, 2, 8, 9)) + TAKEN,
        'wrong-type': OPENED + lie(RW, 5, 5, 2) + lie(RST, 0, 0, 2) + lie(REQUEST, 0, 0, 0x21) + turn() + TAKEN,
        'wrong-cid': OPENED + lie(REQUEST, 0, 0, 1, 1) + lie(RW, 5, 5, 0x11) + turn() + TAKEN,
        'short': OPENED + lie(RW, 50, 40) + turn() + TAKEN,
        'long': OPENED + lie(RW, 40, 50) + turn() + TAKEN,
        'no-header': OPENED + raw(1, 0, 0x400000, 43) + turn() + bytes([RESET, 0]) + OPENED,
        'small-rx': raw(0, 2, 0x400000, 44) + packet(REQUEST) + turn() + bytes([RESET, 0]) + OPENED,
        'onto-rings': raw(0, 2, 0x100000, 4096) + offer() + packet(REQUEST) + end(WRITE, 0, 4000) + turn() + turn(),
        'event': bytes([EVENT, 4]) + OPENED + bytes([RESET, 1]) + turn() + bytes([EVENT, 3, RESET, 1]) + turn(),
        'event-late': OPENED + bytes([RESET, 1]) + turn() + bytes([EVENT, 8]) + turn(),
        'reset-busy': OPENED + end(WRITE, 0, 60000) + packet(RW, 65535) + connect() + offer(1) + bytes([RESET, 0]) + turn(1) +
        rx() + packet(REQUEST, ports=4) + turn() + TAKEN,
        'reset-mid-turn': OPENED + end(WRITE, 0, 60000) + turn(1) + bytes([RESET, 0]) + OPENED,
        'withdrawn': offer() + end(CLOSE, 0) + turn() + offer() + end(SHUT, 0, 1) + turn() + rx() + packet(REQUEST) + turn(),
        'reuse': OPENED + packet(RW, 65535) * 3 + packet(SHUTDOWN, flags=BOTH) + turn() + offer() + packet(REQUEST) +
        packet(RW, 7) + turn() + end(READ, 0, 65535) + end(READ, 1, 7) + turn() + TAKEN,
        'crossing': OPENED + end(CLOSE, 0) + packet(SHUTDOWN, flags=BOTH) + turn() + TAKEN,
    }


# ---- the format of tests/lib/vfuzz.h ----

DATA, RING = 0x20000, 0x10000


def setup():
    return struct.pack('<BI', 6, 0xffffffff)


def chain(q, *descs):
    out = struct.pack('<BBB', 3, q, len(descs) - 1)
    for gpa, length, flags in descs:
        out += gpa.to_bytes(3, 'little') + struct.pack('<HB', length, flags)
    return out


def memory(gpa, data):
    return bytes([2]) + gpa.to_bytes(3, 'little') + bytes([len(data)]) + data


def kick(q):
    return bytes([4, q])


def header(op, length=0, hport=1000, gport=6000, src=77, dst=2, kind=1, flags=0):
    return struct.pack('<QQIIIHHIII', src, dst, gport, hport, length, kind, op, flags, 0x40000, 0)


def dev_seeds():
    def tx(op, payload=b'', **kw):
        return (memory(DATA, header(op, len(payload), **kw) + payload) + chain(1, (DATA, 44 + len(payload), 0)) +
                kick(1) + bytes([5]))
    bufs = b''.join(chain(0, (0x30000 + i * 0x1000, 44, 2), (0x30000 + i * 0x1000 + 44, 4000, 2)) for i in range(12))
    on = setup() + bufs + kick(0) + bytes([5, 5])
    return {
        'accept': on + tx(REQUEST) + tx(RW, b'hello, host') + bytes([5, 5]) + tx(SHUTDOWN, flags=3) + bytes([5]),
        'answer': on + tx(RESPONSE, hport=0x40000000, gport=5000) + tx(RW, b'x', hport=0x40000000, gport=5000),
        'pieces': setup() + chain(0, *[(0x30000 + 2 * i, 2, 2) for i in range(32)]) + kick(0) +
        memory(DATA, header(REQUEST)) + chain(1, *[(DATA + 2 * i, 2, 0) for i in range(22)]) + kick(1) + bytes([5, 5]),
        'short': on + chain(1, (DATA, 43, 0)) + kick(1) + bytes([5]),
        'writable': on + chain(1, (DATA, 44, 2)) + kick(1) + bytes([5]),
        'small-rx': setup() + chain(0, (0x30000, 44, 2)) + kick(0) + bytes([5, 5]),
        'onto-ring': setup() + chain(0, (RING, 4096, 2)) + kick(0) + tx(REQUEST) + bytes([5, 5]),
        'event': on + chain(2, (0x30000, 4, 2)) + kick(2) + bytes([5]),
        'two-lives': on + tx(REQUEST) + on + tx(REQUEST) + tx(RW, b'again') + bytes([5]),
    }


for target, seeds in {'vsock': vsock_seeds(), 'dev-vsock': dev_seeds()}.items():
    folder = os.path.join('corpus', target)
    os.makedirs(folder, exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(folder, 'seed-' + name), 'wb') as f:
            f.write(data)
