#include "api/store/progress.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/loop.h"

#define ERASE "\r\033[K"

void progress_init(struct progress *p, bool quiet)
{
	const char *term = getenv("TERM");

	*p = (struct progress){ .quiet = quiet };
	p->is_terminal = isatty(2) && term && strcmp(term, "dumb");
}

static unsigned elapsed_s(const struct progress *p)
{
	return (unsigned)((loop_now_ns() - p->start_ns) / NSEC_PER_SEC);
}

static void show(struct progress *p)
{
	unsigned s = elapsed_s(p);

	if (p->quiet || !p->what || !p->step)
		return;
	p->shown_s = s;
	if (p->is_terminal)
		fprintf(stderr, ERASE "%s: %u/%u %s (%u:%02u)", p->what, p->step, p->steps, p->text,
			s / 60, s % 60);
	else
		fprintf(stderr, "%s: %u/%u %s\n", p->what, p->step, p->steps, p->text);
}

void progress_begin(struct progress *p, const char *what, unsigned steps)
{
	p->what = what;
	p->steps = steps;
	p->step = 0;
	p->text[0] = '\0';
	p->start_ns = loop_now_ns();
}

void progress_step(struct progress *p, const char *text)
{
	if (!strcmp(text, p->text))
		return;
	snprintf(p->text, sizeof(p->text), "%s", text);
	p->step = MIN(p->step + 1, p->steps);
	show(p);
}

void progress_say(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	if (p->quiet)
		return;
	if (p->is_terminal)
		fputs(ERASE, stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void progress_tick(struct progress *p)
{
	if (p->is_terminal && elapsed_s(p) != p->shown_s)
		show(p);
}

void progress_end(struct progress *p, const char *result)
{
	unsigned s = elapsed_s(p);

	if (!p->quiet && p->is_terminal && p->step)
		fputs(ERASE, stderr);
	if (!p->quiet && result)
		fprintf(stderr, "%s: %s (%u:%02u)\n", p->what, result, s / 60, s % 60);
	p->what = NULL;
	p->step = 0;
}
