#include <stdio.h>
#include <string.h>

#include "guest-init/agent_int.h"

#define RT_MIN                                                                                     \
	34 /* as glibc and every shell count; the kernel's own first two belong to the library */

static const struct {
	const char *name;
	int number;
} signals[] = {
	/* One name a number first: what signals_name() says. signal(7), x86. */
	{ "SIGHUP", 1 },
	{ "SIGINT", 2 },
	{ "SIGQUIT", 3 },
	{ "SIGILL", 4 },
	{ "SIGTRAP", 5 },
	{ "SIGABRT", 6 },
	{ "SIGBUS", 7 },
	{ "SIGFPE", 8 },
	{ "SIGKILL", 9 },
	{ "SIGUSR1", 10 },
	{ "SIGSEGV", 11 },
	{ "SIGUSR2", 12 },
	{ "SIGPIPE", 13 },
	{ "SIGALRM", 14 },
	{ "SIGTERM", 15 },
	{ "SIGSTKFLT", 16 },
	{ "SIGCHLD", 17 },
	{ "SIGCONT", 18 },
	{ "SIGSTOP", 19 },
	{ "SIGTSTP", 20 },
	{ "SIGTTIN", 21 },
	{ "SIGTTOU", 22 },
	{ "SIGURG", 23 },
	{ "SIGXCPU", 24 },
	{ "SIGXFSZ", 25 },
	{ "SIGVTALRM", 26 },
	{ "SIGPROF", 27 },
	{ "SIGWINCH", 28 },
	{ "SIGIO", 29 },
	{ "SIGPWR", 30 },
	{ "SIGSYS", 31 },
	{ "SIGIOT", 6 },
	{ "SIGPOLL", 29 },
	{ "SIGUNUSED", 31 },
};

int signals_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (!strcmp(signals[i].name, name))
			return signals[i].number;
	return 0;
}

const char *signals_name(int sig, char buf[16])
{
	if (sig >= 1 && sig <= 31)
		return signals[sig - 1].name;
	if (sig >= RT_MIN && sig <= 64)
		snprintf(buf, 16, "SIGRTMIN+%d", sig - RT_MIN);
	else
		snprintf(buf, 16, "SIG%d", sig & 0x7f);
	return buf;
}
