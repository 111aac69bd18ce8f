/*
 * api/cli/version.c - skerry version
 */
#include "api/cli/command.h"

static int version_run(unused_arg const struct cli *cli, unused_arg void *config,
	unused_arg struct table_list *operands)
{
	printf("skerry %s\n", SKERRY_VERSION);
	return CLI_OK;
}

static const struct table version_table = {
	.name = "skerry version",
	.summary = "Print the version",
};

const struct command cmd_version = {
	.name = "version",
	.table = &version_table,
	.run = version_run,
};
