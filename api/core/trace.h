/*
 * api/core/trace.h - the phases of a start, for --boot-trace
 */
#pragma once

#include <stdio.h>

#include "base/error.h"

enum trace_phase {
	TRACE_START,     /* main() of the supervisor */
	TRACE_OPENED,    /* kernel, image and the rest are open, the configuration is written */
	TRACE_SPAWNED,   /* the vmm process was started */
	TRACE_VMM_MAIN,  /* its main() was reached */
	TRACE_KVM_READY, /* machine, memory and devices exist, the kernel is loaded */
	TRACE_CONFINED,
	TRACE_FIRST_RUN,    /* KVM_RUN */
	TRACE_GUEST_INIT,   /* first instruction of the guest's PID 1 */
	TRACE_AGENT_READY,  /* in the guest */
	TRACE_CONNECTED,    /* hello was answered */
	TRACE_STARTED,      /* the command runs */
	TRACE_FIRST_OUTPUT, /* its first byte arrived */
	TRACE_EXIT,         /* its status arrived and its output was written */
	TRACE_COUNT,
};

struct trace {
	uint64_t at_ns[TRACE_COUNT]; /* CLOCK_MONOTONIC; 0: didn't happen */
};

/* trace_mark() - Note a phase; the first time counts. */
void trace_mark(struct trace *t, enum trace_phase p, uint64_t at_ns);

/* trace_print() - Microseconds since TRACE_START. A phase that didn't happen is left out. */
void trace_print(const struct trace *t, bool json, FILE *f);
