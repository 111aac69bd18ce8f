#!/usr/bin/env python3
"""Writes the seeds of the virtio fuzz targets (tests/lib/vfuzz.h has the format): corpus/NAME/seed-*.

Run it in this folder after a change of the format; the files are committed.
"""
import os
import struct

RINGS, STRIDE, AVAIL, USED = 0x10000, 0x1000, 0x400, 0x600
DATA = 0x20000
NEXT, WRITE_FLAG, INDIRECT, RAW = 1, 2, 4, 0x80


def write(off, v):
    return struct.pack('<BHI', 0, off, v & 0xffffffff)


def access(off, v, size, is_write):
    code = {1: 0, 2: 1, 4: 2, 8: 3}[size]
    return struct.pack('<BBHQ', 1, code << 1 | is_write, off, v)


def memory(gpa, data):
    out = b''
    for i in range(0, len(data), 255):
        part = data[i:i + 255]
        out += struct.pack('<B', 2) + (gpa + i).to_bytes(3, 'little') + bytes([len(part)]) + part
    return out


def chain(q, *descs):
    out = struct.pack('<BBB', 3, q, len(descs) - 1)
    for gpa, length, flags in descs:
        out += gpa.to_bytes(3, 'little') + struct.pack('<HB', length, flags)
    return out


def kick(q):
    return bytes([4, q])


def turn():
    return bytes([5])


def setup(features=0xffffffff):
    return struct.pack('<BI', 6, features)


def publish(q, head, idx):
    return struct.pack('<BBHH', 7, q, head, idx)


def desc(addr, length, flags, nxt):
    return struct.pack('<QIHH', addr, length, flags, nxt)


def save(target, seeds):
    folder = os.path.join('corpus', target)
    os.makedirs(folder, exist_ok=True)
    for name, data in seeds.items():
        with open(os.path.join(folder, 'seed-' + name), 'wb') as f:
            f.write(data)


def negotiate(features=1 << 32, status=15):
    return (write(0x70, 0) + write(0x70, 3) + write(0x24, 0) + write(0x20, features) + write(0x24, 1)
            + write(0x20, features >> 32) + write(0x70, 11 & status))


def ring_regs(q, size=32, base=None):
    b = RINGS + q * STRIDE if base is None else base
    return (write(0x30, q) + write(0x38, size) + write(0x80, b) + write(0x84, b >> 32) + write(0x90, b + AVAIL)
            + write(0x94, b >> 32) + write(0xa0, b + USED) + write(0xa4, b >> 32) + write(0x44, 1))


def mmio_seeds():
    ok = write(0x70, 15)
    return {
        'identity': b''.join(access(o, 0, 4, 0) for o in range(0, 0x110, 4)),
        'handshake': negotiate() + ring_regs(0) + ring_regs(1) + ring_regs(2) + ok,
        'setup-chain': setup() + chain(0, (DATA, 64, 0), (DATA + 64, 64, WRITE_FLAG)) + kick(0) + turn(),
        'unknown-feature': negotiate(1 << 32 | 1 << 33) + ok,
        'no-version-1': negotiate(1 << 28) + ok,
        'feature-word-2': negotiate() + write(0x24, 2) + write(0x20, 1) + write(0x70, 11),
        'late-queue': setup() + write(0x30, 0) + write(0x44, 0) + ring_regs(0, 16) + kick(0) + turn(),
        'bad-size': negotiate() + ring_regs(0, 3) + ring_regs(1, 65537) + ring_regs(2, 0) + ok,
        'bad-address': negotiate() + ring_regs(0, 32, 1 << 40) + ring_regs(1, 32, 0x2000008) + ok,
        'ring-in-hole': negotiate() + ring_regs(0, 32, 0xd0000000) + ok,
        'config': b''.join(access(0x100 + o, 0x1122334455667788, s, w)
                           for o in (0, 1, 13, 17, 20, 21, 22, 0xef8) for s in (1, 2, 4, 8) for w in (0, 1)),
        'narrow': b''.join(access(o, 0xff, s, 1) for o in (0x70, 0x50, 0x44) for s in (1, 2, 8)),
        'reset-after-kick': setup() + chain(1, (DATA, 8, 0)) + kick(1) + write(0x70, 0) + turn(),
        'two-lives': setup() + chain(2, (DATA, 8, WRITE_FLAG)) + kick(2) + turn() + setup(0) +
        chain(2, (DATA, 8, WRITE_FLAG)) + kick(2) + turn(),
        'ack': setup() + chain(0, (DATA, 1, WRITE_FLAG)) + kick(0) + turn() + access(0x60, 0, 4, 0) +
        write(0x64, 3) + write(0x64, 0xffffffff),
        'failed': write(0x70, 3) + write(0x70, 128) + negotiate() + ok,
        'notify-early': write(0x50, 0) + kick(1) + setup() + kick(7) + write(0x50, 0xffffffff) + turn(),
    }


def vq_image(size, descs, heads, idx=None, flags=0, used_event=0, indirect=b''):
    """Flags: bits 0-2 log2 size, 3 EVENT_IDX, 4 INDIRECT."""
    image = bytearray(0x1000)
    for i, d in enumerate(descs):
        image[16 * i:16 * i + 16] = d
    struct.pack_into('<HH', image, 0x800, 0, len(heads) if idx is None else idx)
    for i, h in enumerate(heads):
        struct.pack_into('<H', image, 0x804 + 2 * (i % size), h)
    struct.pack_into('<H', image, 0x804 + 2 * size, used_event)
    image[0xf00:0xf00 + len(indirect)] = indirect
    return bytes([size.bit_length() - 1 | flags]) + bytes(image).rstrip(b'\0')


def vq_seeds():
    event, ind = 8, 16
    table = RINGS + 0xf00
    one = [desc(DATA, 16, 0, 0)]
    return {
        'empty': vq_image(8, [], []),
        'one': vq_image(8, one, [0]),
        'chain': vq_image(8, [desc(DATA, 16, NEXT, 2), desc(DATA, 1, WRITE_FLAG, 0),
                              desc(DATA + 64, 512, NEXT | WRITE_FLAG, 1)], [0]),
        'full': vq_image(8, [desc(DATA + i, 1, 0, 0) for i in range(8)], list(range(8)), flags=event),
        'loop': vq_image(8, [desc(DATA, 1, NEXT, 1), desc(DATA, 1, NEXT, 0)], [0]),
        'self-loop': vq_image(1, [desc(DATA, 1, NEXT, 0)], [0]),
        'head-out': vq_image(8, one, [8]),
        'duplicate': vq_image(8, one, [0, 0, 0, 0]),
        'idx-jump': vq_image(8, one, [0], idx=9),
        'idx-back': vq_image(8, one, [0], idx=0xffff),
        'wrap': vq_image(8, [desc(2**64 - 8, 16, 0, 0)], [0]),
        'past-end': vq_image(8, [desc(0x1fffff0, 32, 0, 0)], [0]),
        'all-ram': vq_image(8, [desc(0, 0x2000000, 0, 0)], [0]),
        'four-gib': vq_image(128, [desc(0, 0x2000000, NEXT, i + 1) for i in range(127)] + [desc(0, 1, 0, 0)], [0]),
        'out-after-in': vq_image(8, [desc(DATA, 1, NEXT | WRITE_FLAG, 1), desc(DATA, 1, 0, 0)], [0]),
        'zero-length': vq_image(8, [desc(0, 0, NEXT, 1), desc(2**64 - 1, 0, WRITE_FLAG, 0)], [0]),
        'indirect': vq_image(8, [desc(table, 32, INDIRECT, 0)], [0], flags=ind | event,
                             indirect=desc(DATA, 1, NEXT, 1) + desc(DATA, 1, WRITE_FLAG, 0)),
        'indirect-after': vq_image(8, [desc(DATA, 4, NEXT, 1), desc(table, 16, INDIRECT, 0)], [0], flags=ind,
                                   indirect=desc(DATA, 1, WRITE_FLAG, 0)),
        'indirect-nested': vq_image(8, [desc(table, 32, INDIRECT, 0)], [0], flags=ind,
                                    indirect=desc(table, 16, INDIRECT, 0)),
        'indirect-next': vq_image(8, [desc(table, 16, INDIRECT | NEXT, 1)], [0], flags=ind,
                                  indirect=desc(DATA, 1, 0, 0)),
        'indirect-long': vq_image(2, [desc(table, 48, INDIRECT, 0)], [0], flags=ind,
                                  indirect=desc(DATA, 1, NEXT, 1) * 3),
        'indirect-odd': vq_image(8, [desc(table, 17, INDIRECT, 0)], [0], flags=ind),
        'indirect-unaligned': vq_image(8, [desc(table + 1, 16, INDIRECT, 0)], [0], flags=ind,
                                       indirect=b'\0' + desc(DATA, 1, 0, 0)),
        'indirect-off': vq_image(8, [desc(table, 16, INDIRECT, 0)], [0], indirect=desc(DATA, 1, 0, 0)),
    }


def rng_seeds():
    ask = chain(0, (DATA, 64, WRITE_FLAG))
    return {
        'one': setup() + ask + kick(0) + turn(),
        'plain': setup(0) + ask + kick(0) + turn() + ask + kick(0) + turn(),
        'many': setup() + ask * 31 + kick(0) + turn() + ask * 31 + kick(0) + turn(),
        'large': setup() + chain(0, (DATA, 65535, WRITE_FLAG)) * 20 + kick(0) + turn() * 3,
        'pieces': setup() + chain(0, *[(DATA + 3 * i, 1, WRITE_FLAG) for i in range(32)]) + kick(0) + turn(),
        'readable': setup() + chain(0, (DATA, 64, 0)) + kick(0) + turn(),
        'both': setup() + chain(0, (DATA, 64, 0), (DATA, 64, WRITE_FLAG)) + kick(0) + turn(),
        'empty': setup() + chain(0, (DATA, 0, WRITE_FLAG)) + kick(0) + turn(),
        'onto-ring': setup() + chain(0, (RINGS, 4096, WRITE_FLAG)) + kick(0) + turn() + kick(0) + turn(),
        'not-ram': setup() + memory(RINGS, desc(2**63, 64, WRITE_FLAG, 0)) + publish(0, 0, 1) + kick(0) + turn(),
        'duplicate': setup() + ask + publish(0, 0, 2) + kick(0) + turn(),
        'reset-waiting': setup() + chain(0, (DATA, 65535, WRITE_FLAG)) * 31 + kick(0) + write(0x70, 0) + turn() +
        setup() + ask + kick(0) + turn(),
        'early-kick': kick(0) + turn() + setup() + kick(0) + turn(),
    }


def balloon_seeds():
    def pfns(q, *numbers):
        data = b''.join(struct.pack('<I', n) for n in numbers)
        return memory(DATA, data) + chain(q, (DATA, len(data), 0)) + kick(q) + turn()
    report = chain(2, (0x100000, 0x8000, WRITE_FLAG), (0x110000, 0xffff, WRITE_FLAG)) + kick(2) + turn()
    return {
        'inflate': setup() + pfns(0, 0x200, 0x201, 0x202, 0x240),
        'inflate-down': setup() + pfns(0, 0x202, 0x201, 0x200, 0),
        'deflate': setup() + pfns(1, 0x200, 0xffffffff),
        'report': setup() + report,
        'report-odd': setup() + chain(2, (0x100001, 0x2fff, WRITE_FLAG)) + kick(2) + turn(),
        'report-readable': setup() + chain(2, (0x100000, 0x8000, 0)) + kick(2) + turn(),
        'report-ring': setup() + chain(2, (RINGS, 0x8000, WRITE_FLAG)) + kick(2) + turn() + kick(2) + turn(),
        'not-ram': setup() + pfns(0, 0x2000),
        'run-past-end': setup() + pfns(0, 0x1ffe, 0x1fff, 0x2000),
        'run-wraps': setup() + pfns(0, 0xffffffff, 0),
        'odd-length': setup() + memory(DATA, b'\1\2\3\4\5') + chain(0, (DATA, 5, 0)) + kick(0) + turn(),
        'split-number': setup() + memory(DATA, struct.pack('<II', 512, 513)) +
        chain(0, (DATA, 3, 0), (DATA + 3, 5, 0)) + kick(0) + turn(),
        'long-array': setup() + chain(0, *[(DATA, 65532, 0)] * 20) + kick(0) + turn(),
        'poison': setup() + access(0x10c, 0xaaaaaaaa, 4, 1) + report + access(0x10c, 0, 4, 1) + report,
        'actual': setup() + access(0x104, 77, 4, 1) + access(0x104, 1, 1, 1) + access(0x100, 5, 8, 1),
        'all-queues': setup(0) + pfns(0, 1) + pfns(1, 1) + report,
    }


def blk_seeds():
    hdr, status = DATA, DATA + 0x20
    data = 0x30000

    def req(kind, sector, *descs, q=0):
        return (memory(hdr, struct.pack('<IIQ', kind, 0, sector & (2**64 - 1))) +
                chain(q, (hdr, 16, 0), *descs, (status, 1, WRITE_FLAG)) + kick(q) + turn())
    rd = (data, 4096, WRITE_FLAG)
    wr = (data, 4096, 0)
    seg = memory(data, struct.pack('<QII', 8, 8, 0))
    ro, limited = b'\1', b'\2'
    rw = b'\0'
    return {
        'read': rw + setup() + req(0, 0, rd),
        'write': rw + setup() + memory(data, b'abc') + req(1, 3, wr) + req(0, 3, rd),
        'flush': rw + setup() + req(4, 0),
        'id': rw + setup() + req(8, 0, (data, 20, WRITE_FLAG)),
        'discard': rw + setup() + seg + req(11, 0, (data, 16, 0)),
        'discard-unmap': rw + setup() + memory(data, struct.pack('<QII', 8, 8, 1)) + req(11, 0, (data, 16, 0)),
        'zeroes': rw + setup() + seg + req(13, 0, (data, 16, 0)),
        'zeroes-unmap': rw + setup() + memory(data, struct.pack('<QII', 1, 3, 1)) + req(13, 0, (data, 16, 0)),
        'segments-16': rw + setup() + seg * 1 + req(11, 0, (data, 256, 0)),
        'segments-17': rw + setup() + req(11, 0, (data, 272, 0)),
        'out-of-range': rw + setup() + req(0, 512, rd) + req(0, 2**55, rd) + req(1, 2**64 - 1, wr),
        'odd-length': rw + setup() + req(0, 0, (data, 511, WRITE_FLAG)) + req(1, 0, (data, 513, 0)),
        'unsupported': rw + setup() + req(7, 0, rd) + req(0xffffffff, 0, wr),
        'no-status': rw + setup() + memory(hdr, struct.pack('<IIQ', 1, 0, 0)) + chain(0, (hdr, 16, 0), wr) + kick(0)
        + turn(),
        'short-header': rw + setup() + chain(0, (hdr, 15, 0), (status, 1, WRITE_FLAG)) + kick(0) + turn(),
        'split-header': rw + setup() + memory(hdr, struct.pack('<IIQ', 0, 0, 2)) +
        chain(0, *[(hdr + i, 1, 0) for i in range(16)], (data, 513, WRITE_FLAG)) + kick(0) + turn(),
        'write-through': rw + setup(0x6000 | 1 << 29) + req(1, 0, wr) + seg + req(11, 0, (data, 16, 0)),
        'read-only': ro + setup() + req(1, 0, wr) + req(0, 0, rd) + req(11, 0, (data, 16, 0)) + req(4, 0),
        'limited': limited + setup() + req(0, 0, rd) * 4 + turn() * 4,
        'reset-in-flight': rw + setup() + (memory(hdr, struct.pack('<IIQ', 0, 0, 0)) +
                                           chain(0, (hdr, 16, 0), rd, (status, 1, WRITE_FLAG))) * 8 + kick(0) +
        turn() + write(0x70, 0) + setup() + req(0, 0, rd),
        'onto-ring': rw + setup() + req(0, 0, (RINGS, 4096, WRITE_FLAG)) + kick(0) + turn(),
        'bad-after-good': rw + setup() + memory(hdr, struct.pack('<IIQ', 0, 0, 0)) +
        chain(0, (hdr, 16, 0), rd, (status, 1, WRITE_FLAG)) + publish(0, 999, 2) + kick(0) + turn(),
    }


save('virtio-mmio', mmio_seeds())
save('vq', vq_seeds())
save('dev-rng', rng_seeds())
save('dev-balloon', balloon_seeds())
save('dev-blk', blk_seeds())
