/*
 * base/guest_proto.h - how the host and the agent in the guest talk
 *
 * One byte stream (vsock, a virtio-serial port, a socketpair in tests). Each message is a frame:
 *
 *   off  size  field
 *   0    4     len      little endian; bytes after this 8-byte header; <= GP_FRAME_MAX
 *   4    1     kind     GP_JSON, GP_DATA or GP_RESET
 *   5    3     zero     must be zero
 *   8    len   payload  GP_JSON: one JSON-RPC 2.0 message, UTF-8, no terminator
 *                       GP_DATA: 8 bytes stream id, little endian, then 1..GP_DATA_MAX bytes of data
 *                       GP_RESET: 16 random bytes. The agent ends all that belongs to this connection (processes
 *                       get SIGKILL, streams vanish, a hello is needed again) and echoes the frame. For transports
 *                       that are never closed: the echo tells old bytes from new.
 *
 * The host opens with `$skerry.hello`; nothing else is served before it. The agent allocates the ids of the
 * streams it writes from [idBase, idBase + idCount) and a frame outside its range ends the connection.
 *
 *   $skerry.hello   {version, idBase, idCount, binary} -> {version, agent, initNs, readyNs, nowNs}; the times are
 *                   the guest's CLOCK_MONOTONIC: init's first instruction, agent ready, now
 *   spawn           as the SDKs send it: {command, args?, env?, clearEnv?, cwd?, stdinStreamId?, stdout, stderr}
 *   $skerry.spawn   the same with user?, group? (names or numbers), pty?: {rows, cols}
 *   $skerry.resize  {pid, rows, cols}
 *   processWait, abort, processKill and $skerry.kill {pid, signal?, group?: the process group; with SIGKILL all that
 *                   the process started}
 *   $sandbox.stream.start|enqueue|end|error|cancel   notifications, both ways
 *   $skerry.credit  {streamId, bytes}: the reader of a stream grants its writer this many more bytes. Streams
 *                   begin with GP_CREDIT_INITIAL both ways on connections whose hello asked for binary. A writer
 *                   that exceeds its credit ends the connection.
 *   $skerry.setTime {unixNs}
 *
 * With binary, stream data travels as GP_DATA in both directions instead of $sandbox.stream.enqueue.
 */
#pragma once

#include <stdint.h>

#define GP_VERSION        1
#define GP_HEADER         8
#define GP_FRAME_MAX      (1u << 20)
#define GP_DATA_MAX       (64u << 10)
#define GP_CREDIT_INITIAL (256u << 10)
#define GP_VSOCK_PORT     1024 /* the agent connects to the host (CID 2) here, and listens here for the host */

#define GP_RESET_NONCE 16

enum gp_kind { GP_JSON = 0, GP_DATA = 1, GP_RESET = 2 };
