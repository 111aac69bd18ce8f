#include "base/error.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

int error_set(struct error *e, int code, const char *fmt, ...)
{
	char raw[sizeof(e->msg)];
	va_list ap;

	assert(code > 0);
	if (!e)
		return -code;
	va_start(ap, fmt);
	vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	log_escape(e->msg, sizeof(e->msg), raw, strlen(raw));
	e->code = code;
	return -code;
}

int error_prefix(struct error *e, const char *fmt, ...)
{
	char old[sizeof(e->msg)], head[128];
	va_list ap;

	if (!e)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	memcpy(old, e->msg, sizeof(old));
	return error_set(e, e->code, "%s: %s", head, old);
}
