/*
 * api/cli/commands.c - the list of commands
 */
#include "api/cli/command.h"

extern const struct command cmd_run, cmd_emu, cmd_setup, cmd_version, cmd_help;

const struct command *const cli_commands[] = {
	&cmd_run,
	&cmd_emu,
	&cmd_setup,
	&cmd_version,
	&cmd_help,
	NULL,
};
