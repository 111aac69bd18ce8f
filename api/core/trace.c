#include "api/core/trace.h"

static const struct {
	const char *key, *text;
} phases[TRACE_COUNT] = {
	[TRACE_START] = { "start", "process start" },
	[TRACE_OPENED] = { "opened", "kernel and image open" },
	[TRACE_SPAWNED] = { "spawned", "vmm process started" },
	[TRACE_VMM_MAIN] = { "vmm_main", "vmm main" },
	[TRACE_KVM_READY] = { "kvm_ready", "KVM set up, kernel loaded" },
	[TRACE_CONFINED] = { "confined", "confined" },
	[TRACE_FIRST_RUN] = { "first_kvm_run", "first KVM_RUN" },
	[TRACE_GUEST_INIT] = { "guest_init", "guest init" },
	[TRACE_AGENT_READY] = { "agent_ready", "agent ready" },
	[TRACE_CONNECTED] = { "connected", "agent connected" },
	[TRACE_STARTED] = { "command_started", "command started" },
	[TRACE_FIRST_OUTPUT] = { "first_output", "first output byte" },
	[TRACE_EXIT] = { "exit", "exit" },
};

void trace_mark(struct trace *t, enum trace_phase p, uint64_t at_ns)
{
	if (!t->at_ns[p])
		t->at_ns[p] = at_ns;
}

void trace_print(const struct trace *t, bool json, FILE *f)
{
	uint64_t start = t->at_ns[TRACE_START], last = start;

	fputs(json ? "{\"unit\":\"us\",\"phases\":{"
		   : "phase                        at us      took us\n",
		f);
	for (int p = 0; p < TRACE_COUNT; p++) {
		uint64_t at = t->at_ns[p];
		unsigned long long us = at > start ? (at - start) / 1000 : 0;

		if (!at)
			continue;
		if (json)
			fprintf(f, "%s\"%s\":%llu", p ? "," : "", phases[p].key, us);
		else
			fprintf(f, "%-26s %8llu %12llu\n", phases[p].text, us,
				(unsigned long long)(at > last ? (at - last) / 1000 : 0));
		last = at;
	}
	fputs(json ? "}}\n" : "", f);
}
