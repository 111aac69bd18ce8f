/*
 * base/ctl.h - control channel between the supervisor and its roles
 *
 * One SOCK_SEQPACKET message each way; descriptors ride along by SCM_RIGHTS (base/fdpass.h). The
 * role checks that a peer has its supervisor's uid (SO_PEERCRED), then both send CTL_HELLO first.
 * One older major is served.
 *
 *   off  size  field
 *   0    2     type
 *   2    2     zero
 *   4    4     len     bytes that follow, <= CTL_MSG_MAX - 8
 *   8    len   struct of the type
 */
#pragma once

#include "base/error.h"

#define CTL_VERSION        1
#define CTL_VERSION_OLDEST 1 /* still served */
#define CTL_MSG_MAX        1024
#define CTL_FDS_MAX        4

enum ctl_type {
	CTL_HELLO = 1,
	/* supervisor -> vmm */
	CTL_VSOCK_CONNECT, /* struct ctl_vsock + 1 fd: connect to the guest's port, relay to this */
	CTL_VSOCK_ACCEPT,  /* struct ctl_vsock + 1 fd: the guest's next to this host port gets it */
	CTL_BALLOON,       /* struct ctl_balloon */
	CTL_QUIT,          /* stop the machine and exit */
	CTL_PROBE,         /* struct ctl_probe: try what confinement forbids (tests, doctor) */
	/* vmm -> supervisor */
	CTL_PHASE,        /* struct ctl_phase */
	CTL_EXIT,         /* struct ctl_exit: the machine ended; the process exits next */
	CTL_PROBE_RESULT, /* struct ctl_probe_result */
};

struct ctl_hello {
	uint32_t version;
	uint32_t pid;
};
struct ctl_vsock {
	uint32_t port;
};
struct ctl_balloon {
	uint64_t target_bytes; /* size that the balloon should reach */
};
struct ctl_probe {
	uint32_t what; /* enum confine_probe */
};
struct ctl_probe_result {
	uint32_t what;
	int32_t result; /* 0: it was possible (bad); -errno: refused */
};
enum ctl_phase_id {
	PHASE_EXEC,      /* vmm main reached */
	PHASE_KVM_READY, /* VM, memory, vCPUs and devices exist; kernel loaded */
	PHASE_CONFINED,
	PHASE_FIRST_KVM_RUN,
	PHASE_COUNT,
};
struct ctl_phase {
	uint32_t id;
	uint32_t zero;
	uint64_t mono_ns;
};
struct ctl_exit {
	uint32_t why;     /* enum vm_exit, or VM_EXIT_NONE + detail for a failed start */
	char detail[480]; /* as long as an error's message */
};

struct ctl_msg {
	uint16_t type;
	uint16_t zero;
	uint32_t len;
	union {
		struct ctl_hello hello;
		struct ctl_vsock vsock;
		struct ctl_balloon balloon;
		struct ctl_probe probe;
		struct ctl_probe_result probe_result;
		struct ctl_phase phase;
		struct ctl_exit exit;
		uint8_t raw[CTL_MSG_MAX - 8];
	} u;
};

/* Descriptors that a message of @type must carry, no more and no fewer. */
unsigned ctl_nfds(uint16_t type);
/**
 * ctl_check() - Judge a received message; the pure half of ctl_recv()
 * @m: @n bytes of it were received, @nfds descriptors came along
 *
 * Return: 0, or -EPROTO: unknown type, wrong length or number of descriptors, a text without
 * terminator.
 */
int ctl_check(const struct ctl_msg *m, size_t n, unsigned nfds) must_check;
/* ctl_check_hello() - 0, or -EPROTO and what to do: no hello, or a version that isn't served. */
int ctl_check_hello(const struct ctl_msg *m, struct error *e) must_check;
/* ctl_send() - Send one message with @nfds descriptors (they stay the caller's). 0 or -errno. */
int ctl_send(int fd, uint16_t type, const void *body, uint32_t len, const int *fds,
	unsigned nfds) must_check;
/**
 * ctl_recv() - Receive and check one message
 * @fds: CTL_FDS_MAX entries; unused ones are set to -1; received ones are the caller's, O_CLOEXEC
 *
 * Return: 1 a message, 0 end of file, -EAGAIN, -EPROTO (malformed, wrong length for its type),
 * -errno.
 */
int ctl_recv(int fd, struct ctl_msg *ret, int fds[CTL_FDS_MAX]) must_check;
