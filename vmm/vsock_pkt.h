/*
 * vmm/vsock_pkt.h - packets of the virtio socket device
 *
 * Spec: VIRTIO 1.2, 5.10.6; all little-endian.
 *
 *   off  size  field
 *   0    8     src_cid
 *   8    8     dst_cid
 *   16   4     src_port
 *   20   4     dst_port
 *   24   4     len        bytes of payload behind the header
 *   28   2     type       VSOCK_TYPE_STREAM
 *   30   2     op         enum vsock_op
 *   32   4     flags      of SHUTDOWN
 *   36   4     buf_alloc  the sender's receive buffer for this stream, bytes
 *   40   4     fwd_cnt    bytes of the stream that left this buffer so far, modulo 2^32
 */
#pragma once

#include <endian.h>
#include <string.h>

#include "base/util.h"

#define VSOCK_HDR_SIZE 44

#define VSOCK_CID_HOST     2
#define VSOCK_CID_FIRST    3 /* 5.10.4: lower ones are reserved */
#define VSOCK_CID_RESERVED UINT64_C(0xffffffff)

#define VSOCK_TYPE_STREAM 1

/* 5.10.6.5 */
#define VSOCK_SHUTDOWN_RCV  1u /* the sender of this takes no more data */
#define VSOCK_SHUTDOWN_SEND 2u /* the sender of this sends no more data */
#define VSOCK_SHUTDOWN_BOTH 3u

enum vsock_op {
	VSOCK_OP_INVALID,
	VSOCK_OP_REQUEST,
	VSOCK_OP_RESPONSE,
	VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN,
	VSOCK_OP_RW,
	VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
};

#define VSOCK_EVENT_TRANSPORT_RESET 0 /* 5.10.6.7: le32 in a buffer of the event queue */

struct vsock_hdr {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt;
};

static inline void vsock_hdr_decode(struct vsock_hdr *ret, const uint8_t raw[VSOCK_HDR_SIZE])
{
	memcpy(ret, raw, VSOCK_HDR_SIZE);
	ret->src_cid = le64toh(ret->src_cid);
	ret->dst_cid = le64toh(ret->dst_cid);
	ret->src_port = le32toh(ret->src_port);
	ret->dst_port = le32toh(ret->dst_port);
	ret->len = le32toh(ret->len);
	ret->type = le16toh(ret->type);
	ret->op = le16toh(ret->op);
	ret->flags = le32toh(ret->flags);
	ret->buf_alloc = le32toh(ret->buf_alloc);
	ret->fwd_cnt = le32toh(ret->fwd_cnt);
}

static inline void vsock_hdr_encode(uint8_t raw[VSOCK_HDR_SIZE], const struct vsock_hdr *h)
{
	struct vsock_hdr le = {
		.src_cid = htole64(h->src_cid),
		.dst_cid = htole64(h->dst_cid),
		.src_port = htole32(h->src_port),
		.dst_port = htole32(h->dst_port),
		.len = htole32(h->len),
		.type = htole16(h->type),
		.op = htole16(h->op),
		.flags = htole32(h->flags),
		.buf_alloc = htole32(h->buf_alloc),
		.fwd_cnt = htole32(h->fwd_cnt),
	};

	memcpy(raw, &le, VSOCK_HDR_SIZE);
}

_Static_assert(
	offsetof(struct vsock_hdr, fwd_cnt) + 4 == VSOCK_HDR_SIZE, "layout of the specification");
