/*
 * api/cli/cli.c - from a command line to the command it names
 */
#include "api/cli/command.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

#define NAMES_MAX 64

void cli_error(const struct error *e)
{
	log_error("%s", e->msg);
}

const struct command *cli_find(const struct command *const *list, const char *name)
{
	for (; *list; list++)
		if (!strcmp((*list)->name, name))
			return *list;
	return NULL;
}

void cli_help(FILE *f)
{
	const struct command *const *c;

	fprintf(f, "Usage: skerry COMMAND [OPTION...] [ARG...]\n\n"
		   "Runs programs in small, locked-down Linux virtual machines.\n\n"
		   "Commands:\n");
	for (c = cli_commands; *c; c++)
		fprintf(f, "  %-10s %s\n", (*c)->name, (*c)->table->summary);
	fprintf(f, "\n'skerry COMMAND --help' says more about one of them.\n");
}

static int unknown_command(const struct command *const *list, const char *prefix, const char *name)
{
	const char *names[NAMES_MAX];
	const char *near;
	struct error e;
	size_t n = 0;

	while (list[n] && n < NAMES_MAX - 1) {
		names[n] = list[n]->name;
		n++;
	}
	names[n] = NULL;
	near = table_nearest(name, names);
	if (near)
		error_set(&e, EINVAL, "no command '%s%s'; did you mean '%s%s'?", prefix, name,
			prefix, near);
	else
		error_set(&e, EINVAL, "no command '%s%s'; 'skerry help' lists them", prefix, name);
	cli_error(&e);
	return CLI_USAGE;
}

static int run_command(const struct cli *cli, const struct command *c, int argc, char **argv)
{
	struct table_list operands = { 0 };
	struct error e = { 0 };
	int r, status;
	void *config = calloc(1, c->table->size ? c->table->size : 1);

	if (!config) {
		error_set(&e, ENOMEM, "out of memory");
		cli_error(&e);
		return CLI_ERROR;
	}
	table_defaults(c->table, config);
	r = table_parse(c->table, config, argc, argv, &operands, &e);
	if (r == TABLE_HELP) {
		table_help(c->table, stdout);
		status = CLI_OK;
	} else if (r < 0) {
		cli_error(&e);
		status = c->usage_status ? c->usage_status : CLI_USAGE;
	} else {
		status = c->run(cli, config, &operands);
	}
	table_free(c->table, config);
	table_list_free(&operands);
	free(config);
	return status;
}

static int run_group(const struct cli *cli, const struct command *c, int argc, char **argv)
{
	const struct command *const *s;
	const struct command *sub;

	if (argc && strcmp(argv[0], "--help") && strcmp(argv[0], "-h")) {
		sub = cli_find(c->sub, argv[0]);
		if (sub)
			return run_command(cli, sub, argc - 1, argv + 1);
		return unknown_command(c->sub, c->name, argv[0]);
	}
	printf("Usage: skerry %s COMMAND\n\n%s.\n\nCommands:\n", c->name, c->table->summary);
	for (s = c->sub; *s; s++)
		printf("  %-10s %s\n", (*s)->name, (*s)->table->summary);
	return argc ? CLI_OK : CLI_USAGE;
}

int cli_main(const struct cli *cli)
{
	const struct command *c;
	const char *name = cli->argc > 1 ? cli->argv[1] : NULL;

	if (!name) {
		cli_help(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	else if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		name = "version";
	c = cli_find(cli_commands, name);
	if (!c)
		return unknown_command(cli_commands, "", name);
	if (c->sub)
		return run_group(cli, c, cli->argc - 2, cli->argv + 2);
	return run_command(cli, c, cli->argc - 2, cli->argv + 2);
}
