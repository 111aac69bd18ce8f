/*
 * api/main.c - one binary, several programs
 *
 * A role (a confined process of a sandbox) is this file under another argv[0]; it is dispatched before anything
 * else is touched, so that a role pays for and holds nothing but its own. Everything else is a command.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "api/cli/command.h"
#include "api/emu/emu.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/role.h"

struct role {
	const char *name; /* argv[0] */
	int (*main)(int argc, char **argv);
};

static const struct role roles[] = {
	{ "skerry-vmm", vmm_main },
	{ "skerry-emu", emu_daemon_main },
	{ NULL, NULL },
};

/* Descriptors 0 to 2 must be something, or the next file opened becomes standard output. */
static int fill_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
	return fd < 0 ? -errno : 0;
}

/* Output that could not be written is a failure, also of `skerry help >/dev/full`. */
static int flush_stdout(int status)
{
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	if (errno != EPIPE)
		log_error("standard output: %s", strerror(errno));
	return status ? status : CLI_FAILED;
}

int main(int argc, char **argv)
{
	struct cli cli = { .argc = argc, .argv = argv };
	const struct role *r;

	for (r = roles; r->name; r++)
		if (argc && !strcmp(argv[0], r->name))
			return r->main(argc, argv);
	cli.start_ns = loop_now_ns();
	log_init("skerry", LOG_INFO);
	if (fill_stdio()) {
		log_error("/dev/null: %s", strerror(errno));
		return CLI_ERROR;
	}
	return flush_stdout(cli_main(&cli));
}
