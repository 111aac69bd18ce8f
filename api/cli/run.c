/*
 * api/cli/run.c - skerry run: options of a command in a new sandbox
 */
#include <errno.h>
#include <string.h>

#include "api/cli/command.h"
#include "api/cli/run_session.h"
#include "api/core/attach.h"
#include "api/core/signals.h"
#include "api/emu/accel.h"
#include "api/emu/emu.h"
#include "base/process.h"

struct run_config {
	bool interactive, quiet, no_confine, require_confinement;
	struct table_list env;
	const char *workdir, *user, *image, *kernel;
	uint64_t cpus, memory, timeout_ns, boot_timeout_ns;
	int accel, trace;
};

#define BOOT_TIMEOUT_NS          (30 * NSEC_PER_SEC)
#define BOOT_TIMEOUT_EMULATED_NS (180 * NSEC_PER_SEC)

static const char *const accels[] = { "auto", "kvm", "emulated", "emulated,icount", NULL };
static const char *const traces[] = {
	[RUN_TRACE_OFF] = "off",
	[RUN_TRACE_TEXT] = "text",
	[RUN_TRACE_JSON] = "json",
	NULL,
};

#define AT(member) offsetof(struct run_config, member)

static const struct table_field run_fields[] = {
	{ "interactive", 'i', TABLE_FLAG, AT(interactive),
		.help = "Forward standard input; a pipe or a file is forwarded anyway" },
	{ "env", 'e', TABLE_LIST, AT(env), "NAME=VALUE",
		.help = "Set a variable; NAME alone takes its value from this environment" },
	{ "workdir", 'w', TABLE_STRING, AT(workdir), "DIR", .min = 1,
		.help = "Folder to start in (default: the user's home)" },
	{ "user", 'u', TABLE_STRING, AT(user), "USER", .min = 1,
		.help = "User to run as (default: app)" },
	{ "cpus", 0, TABLE_INT, AT(cpus), "N", "2", .min = 1, .max = SANDBOX_CPUS_MAX,
		.help = "Virtual CPUs" },
	{ "memory", 'm', TABLE_SIZE, AT(memory), "SIZE", "2g", .min = SANDBOX_MEMORY_MIN,
		.max = SANDBOX_MEMORY_MAX, .help = "Memory; taken only as it is used" },
	{ "image", 0, TABLE_STRING, AT(image), "NAME", .min = 1,
		.help = "Image (default: debian-13)" },
	{ "kernel", 0, TABLE_STRING, AT(kernel), "NAME|FILE", .min = 1,
		.help = "Kernel: a name, or a vmlinux or bzImage file (default: debian-13)" },
	{ "timeout", 0, TABLE_DURATION, AT(timeout_ns), "TIME", .min = NSEC_PER_MSEC,
		.help = "End the command after this long, with status 124" },
	{ "boot-timeout", 0, TABLE_DURATION, AT(boot_timeout_ns), "TIME", .min = NSEC_PER_MSEC,
		.help = "Give up if the guest isn't ready by then (default: 30s; emulated: 180s)" },
	{ "accel", 0, TABLE_ENUM, AT(accel), "HOW", "auto", .choices = accels,
		.help = "Where the machine runs: auto, kvm, emulated or emulated,icount" },
	{ "require-confinement", 0, TABLE_FLAG, AT(require_confinement),
		.help = "Fail rather than confine the machine's process at level 'basic' only" },
	{ "no-confine", 0, TABLE_FLAG, AT(no_confine),
		.help = "Don't confine it at all; for debugging skerry only" },
	{ "boot-trace", 0, TABLE_ENUM, AT(trace), "text|json", "off", .implicit = "text",
		.choices = traces, .help = "Show on standard error when each phase was reached" },
	{ "quiet", 'q', TABLE_FLAG, AT(quiet), .help = "Say nothing but errors" },
};

static const struct table run_table = {
	.name = "skerry run",
	.operands = "[--] CMD [ARG...]",
	.summary = "Run a command in a new virtual machine",
	.text = "The machine boots, runs CMD and is gone when CMD ends. Output and exit status\n"
		"are the command's: 128+n after signal n, 126 if it can't be executed, 127 if\n"
		"there is no such command, 124 after --timeout, 125 if skerry itself failed.\n"
		"SIGINT, SIGTERM and SIGHUP are passed on; if the command hasn't ended 10 seconds\n"
		"later it is killed. A second Ctrl-C within two seconds kills it at once.\n\n"
		"Options end at CMD: what follows belongs to it.",
	TABLE_FIELDS(run_fields),
	.size = sizeof(struct run_config),
	.min_operands = 1,
	.max_operands = SIZE_MAX,
	.operands_end_options = true,
};

/* NAME=VALUE of every -e; NAME alone looks here, and is left out if it isn't set. */
static int expand_env(
	const struct run_config *c, struct table_list *ret, char ***ret_owned, struct error *e)
{
	char **owned = calloc(c->env.n + 1, sizeof(*owned));
	size_t n = 0;
	int r = 0;

	if (!owned)
		return error_set(e, ENOMEM, "out of memory");
	*ret_owned = owned;
	for (size_t i = 0; i < c->env.n && !r; i++) {
		const char *arg = c->env.items[i], *value;

		if (!*arg || *arg == '=')
			return error_set(
				e, EINVAL, "--env '%s': has no name; write NAME=VALUE", arg);
		if (!strchr(arg, '=')) {
			value = getenv(arg);
			if (!value)
				continue;
			if (asprintf(&owned[n], "%s=%s", arg, value) < 0) {
				owned[n] = NULL;
				return error_set(e, ENOMEM, "out of memory");
			}
			arg = owned[n++];
		}
		r = table_list_add(ret, arg);
	}
	return r ? error_set(e, -r, "--env: %s", strerror(-r)) : 0;
}

static int check(const struct run_config *c, struct error *e)
{
	if (c->no_confine && c->require_confinement)
		return error_set(
			e, EINVAL, "--no-confine and --require-confinement exclude each other");
	return 0;
}

static int run_here(const struct cli *cli, const struct run_config *c,
	const struct table_list *operands, const struct table_list *env, bool forward_stdin)
{
	struct run_params p = {
		.sandbox = {
			.name = "run",
			.kernel = c->kernel,
			.image = c->image,
			.cpus = (unsigned)c->cpus,
			.memory = c->memory,
			.boot_timeout_ns = c->boot_timeout_ns,
			.best = c->no_confine ? CONFINE_NONE : CONFINE_FULL,
			.least = c->no_confine ? CONFINE_NONE :
				c->require_confinement ? CONFINE_ROOT : CONFINE_BASIC,
		},
		.spawn = {
			.command = operands->items[0],
			.args = operands->items + 1,
			.nargs = operands->n - 1,
			.env = env->items,
			.nenv = env->n,
			.cwd = c->workdir,
			.user = c->user,
		},
		.forward_stdin = forward_stdin,
		.quiet = c->quiet,
		.trace = (enum run_trace)c->trace,
		.timeout_ns = c->timeout_ns,
		.start_ns = cli->start_ns,
	};
	struct error e = { 0 };

	signals_block();
	if (!p.sandbox.boot_timeout_ns)
		p.sandbox.boot_timeout_ns =
			getenv(ACCEL_ENV_INSIDE) ? BOOT_TIMEOUT_EMULATED_NS : BOOT_TIMEOUT_NS;
	if (process_init(&e)) {
		cli_error(&e);
		return CLI_ERROR;
	}
	return run_session(&p);
}

static int run_there(const struct cli *cli, const struct run_config *c,
	const struct accel_choice *choice, bool forward_stdin)
{
	struct emu_opts opts = {
		.icount = choice->icount,
		.scratch_ok = true, /* a run leaves nothing behind */
		.forward_stdin = forward_stdin,
		.quiet = c->quiet,
		.say = choice->say,
	};

	return emu_exec(cli->argc - 1, cli->argv + 1, &opts);
}

static int run_run(const struct cli *cli, void *config, struct table_list *operands)
{
	const struct run_config *c = config;
	bool forward_stdin = c->interactive || attach_wants_stdin(0);
	struct accel_choice choice = { 0 };
	struct table_list env = { 0 };
	struct accel_want want;
	struct error e = { 0 };
	char **owned = NULL;
	int r, status = CLI_ERROR;

	r = check(c, &e);
	if (!r)
		r = expand_env(c, &env, &owned, &e);
	if (!r)
		r = accel_parse(&want, accels[c->accel], &e);
	if (!r)
		r = accel_pick(&want, &choice, &e);
	if (r)
		cli_error(&e);
	else if (choice.accel == ACCEL_EMULATED)
		status = run_there(cli, c, &choice, forward_stdin);
	else
		status = run_here(cli, c, operands, &env, forward_stdin);
	for (char **o = owned; o && *o; o++)
		free(*o);
	free(owned);
	table_list_free(&env);
	return status;
}

const struct command cmd_run = {
	.name = "run",
	.table = &run_table,
	.run = run_run,
	.usage_status = CLI_ERROR,
};
