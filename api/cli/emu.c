/*
 * api/cli/emu.c - skerry emu: programs of this machine inside the emulated host
 */
#include "api/cli/command.h"

#include <errno.h>
#include <string.h>

#include "api/core/attach.h"
#include "api/emu/accel.h"
#include "api/emu/emu.h"
#include "base/log.h"

struct emu_command {
	bool interactive, quiet, icount, stop, force;
};

static const struct table_field fields[] = {
	{ "interactive", 'i', TABLE_FLAG, offsetof(struct emu_command, interactive),
		.help = "forward standard input also from a terminal" },
	{ "quiet", 'q', TABLE_FLAG, offsetof(struct emu_command, quiet),
		.help = "say nothing but errors" },
	{ "icount", 0, TABLE_FLAG, offsetof(struct emu_command, icount),
		.help = "a host whose clock counts instructions: repeatable figures" },
	{ "stop", 0, TABLE_FLAG, offsetof(struct emu_command, stop),
		.help = "end the emulated hosts of this user" },
	{ "force", 0, TABLE_FLAG, offsetof(struct emu_command, force),
		.help = "with --stop: also while commands run in them" },
};

static int stop(const struct emu_command *o)
{
	struct error e;
	unsigned n;

	if (emu_stop(o->force, &n, &e)) {
		cli_error(&e);
		return CLI_FAILED;
	}
	if (!o->quiet)
		log_info(n ? "ended %u" : "none was running", n);
	return CLI_OK;
}

static int emu_run(unused_arg const struct cli *cli, void *config, struct table_list *operands)
{
	const struct emu_command *o = config;
	struct emu_opts opts = {
		.icount = o->icount,
		.quiet = o->quiet,
		.forward_stdin = o->interactive || attach_wants_stdin(0),
	};
	const char *inside = getenv(ACCEL_ENV_INSIDE);
	struct error e;

	if (inside && *inside) {
		error_set(
			&e, EINVAL, "this is the emulated host already; run the program as it is");
		cli_error(&e);
		return CLI_ERROR;
	}
	if (o->stop)
		return stop(o);
	if (!operands->n) {
		error_set(&e, EINVAL, "which program? skerry emu -- CMD [ARG...]");
		cli_error(&e);
		return CLI_USAGE;
	}
	return emu_exec_program((int)operands->n, (char *const *)operands->items, &opts);
}

static const struct table emu_table = {
	.name = "skerry emu",
	.operands = "[--] CMD [ARG...]",
	.summary = "Run a program of this machine inside the emulated host",
	.text = "On machines whose KVM can't run Linux guests, skerry carries on in an emulated\n"
		"host: a machine emulated by QEMU that shows this one's files, read-only. This\n"
		"command runs any program there, as its root. It ends by itself when idle for\n"
		"SKERRY_EMU_IDLE (60s). With SKERRY_EMU_SCRATCH=1 what it writes is not kept.",
	TABLE_FIELDS(fields),
	.size = sizeof(struct emu_command),
	.max_operands = TABLE_LIST_MAX,
	.operands_end_options = true,
};

const struct command cmd_emu = {
	.name = "emu",
	.table = &emu_table,
	.run = emu_run,
	.usage_status = CLI_ERROR,
};
