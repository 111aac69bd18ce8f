/*
 * api/cli/run_session.h - one command in one new sandbox, in the foreground
 */
#pragma once

#include "api/core/sandbox.h"

enum run_trace { RUN_TRACE_OFF, RUN_TRACE_TEXT, RUN_TRACE_JSON };

struct run_params {
	struct sandbox_config sandbox; /* loop, trace, ops and ctx are filled in */
	struct agent_spawn spawn;
	bool forward_stdin, quiet;
	enum run_trace trace;
	uint64_t timeout_ns; /* 0: none */
	uint64_t start_ns;
};

/**
 * run_session() - Start, run, end
 *
 * signals_block() and process_init() were called. Messages go to standard error.
 * Return: the exit status (enum cli_status). Nothing is left of the sandbox then.
 */
int run_session(const struct run_params *p);
