/*
 * api/cli/help.c - skerry help [COMMAND]
 */
#include "api/cli/command.h"

#include <errno.h>

static int help_run(
	unused_arg const struct cli *cli, unused_arg void *config, struct table_list *operands)
{
	const struct command *c;
	struct error e;

	if (!operands->n) {
		cli_help(stdout);
		return CLI_OK;
	}
	c = cli_find(cli_commands, operands->items[0]);
	if (c && c->sub && operands->n > 1)
		c = cli_find(c->sub, operands->items[1]);
	if (!c) {
		error_set(&e, EINVAL, "no command '%s'; 'skerry help' lists them",
			operands->items[operands->n - 1]);
		cli_error(&e);
		return CLI_USAGE;
	}
	table_help(c->table, stdout);
	return CLI_OK;
}

static const struct table help_table = {
	.name = "skerry help",
	.operands = "[COMMAND]",
	.summary = "Say what a command does and which options it has",
	.max_operands = 2,
};

const struct command cmd_help = {
	.name = "help",
	.table = &help_table,
	.run = help_run,
};
