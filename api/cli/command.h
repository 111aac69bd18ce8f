/*
 * api/cli/command.h - what one subcommand is
 *
 * A command is one file under api/cli/ (or beside the module it belongs to) that defines one `const struct
 * command`, and one line in the array of api/cli/commands.c. Its table gives parsing and help.
 */
#pragma once

#include "base/table.h"

/* Exit statuses of skerry's own, as env(1), timeout(1) and the shells use them. */
enum cli_status {
	CLI_OK = 0,
	CLI_FAILED = 1, /* a command that runs nothing in a sandbox failed */
	CLI_USAGE = 2,  /* such a command was called wrongly */
	CLI_TIMEOUT = 124,
	CLI_ERROR = 125, /* skerry itself failed; the command didn't run, or was lost */
	CLI_NOT_EXECUTABLE = 126,
	CLI_NOT_FOUND = 127,
	CLI_SIGNAL = 128, /* + number */
};

struct cli {
	int argc; /* the whole command line, as main() got it */
	char **argv;
	uint64_t start_ns; /* CLOCK_MONOTONIC at main() */
};

struct command {
	const char *name; /* "run" */
	const struct table *table;
	/**
	 * run() - Do it
	 * @config: table->size bytes, parsed; its lists are freed by the caller
	 * Return: the exit status. The function has printed its own errors (cli_error()).
	 */
	int (*run)(const struct cli *cli, void *config, struct table_list *operands);
	const struct command *const
		*sub;     /* NULL-terminated; `skerry kernel ls`: then table may lack run */
	int usage_status; /* status of a wrong command line; 0: CLI_USAGE */
};

/* All commands, NULL-terminated, in the order of the help. */
extern const struct command *const cli_commands[];

/* cli_main() - Find the command that argv names, parse, run. */
int cli_main(const struct cli *cli);

/* cli_error() - "skerry: MESSAGE" on standard error. */
void cli_error(const struct error *e);

/* cli_help() - The list of commands. */
void cli_help(FILE *f);

/* cli_find() - NULL if there is no such command. */
const struct command *cli_find(const struct command *const *list, const char *name);
