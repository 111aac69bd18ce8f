#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LINE_MAX_BYTES 2048

static const char *log_prefix = "skerry";
static enum log_level log_max = LOG_INFO;
static int log_fd = 2;

void log_init(const char *prefix, enum log_level max)
{
	log_prefix = prefix ? prefix : "skerry";
	log_max = max;
}

void log_set_fd(int fd)
{
	log_fd = fd;
}

/* Length of the well-formed UTF-8 sequence at @s (RFC 3629), or 0. C1 controls count as ill-formed. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
	size_t want;
	uint32_t cp;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		want = 2, cp = s[0] & 0x1f;
	else if ((s[0] & 0xf0) == 0xe0)
		want = 3, cp = s[0] & 0x0f;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		want = 4, cp = s[0] & 0x07;
	else
		return 0;
	if (n < want)
		return 0;
	for (size_t i = 1; i < want; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		cp = cp << 6 | (s[i] & 0x3f);
	}
	if (cp < 0xa0 || (want == 3 && cp < 0x800) || (cp >= 0xd800 && cp <= 0xdfff) ||
		(want == 4 && (cp < 0x10000 || cp > 0x10ffff)))
		return 0;
	return want;
}

void log_escape(char *dst, size_t size, const char *src, size_t len)
{
	const unsigned char *s = (const unsigned char *)src;
	size_t o = 0;

	if (!size)
		return;
	for (size_t i = 0; i < len;) {
		size_t n = utf8_len(s + i, len - i);
		char tmp[5];

		if (n == 1 && s[i] == '\n') {
			memcpy(tmp, "\\n", 3);
		} else if (n == 0 || s[i] < 0x20 || s[i] == 0x7f) {
			snprintf(tmp, sizeof(tmp), "\\x%02x", s[i]);
			n = 1;
		} else {
			memcpy(tmp, s + i, n);
			tmp[n] = 0;
		}
		if (o + strlen(tmp) >= size)
			break;
		memcpy(dst + o, tmp, strlen(tmp));
		o += strlen(tmp);
		i += n;
	}
	dst[o] = 0;
}

static void printf_like(3, 0)
	log_v(enum log_level level, const char *tag, const char *fmt, va_list ap)
{
	char raw[LINE_MAX_BYTES / 2], esc[LINE_MAX_BYTES], line[LINE_MAX_BYTES + 128];
	int n;

	if (level > log_max)
		return;
	vsnprintf(raw, sizeof(raw), fmt, ap);
	log_escape(esc, sizeof(esc), raw, strlen(raw));
	n = snprintf(line, sizeof(line), "%s: %s%s\n", log_prefix, tag, esc);
	if (n > 0 && write(log_fd, line, MIN((size_t)n, sizeof(line) - 1)) < 0)
		return; /* nowhere left to say it */
}

#define LOG_FN(name, level, tag)                                                                   \
	void name(const char *fmt, ...)                                                            \
	{                                                                                          \
		va_list ap;                                                                        \
		va_start(ap, fmt);                                                                 \
		log_v(level, tag, fmt, ap);                                                        \
		va_end(ap);                                                                        \
	}

LOG_FN(log_error, LOG_ERROR, "")
LOG_FN(log_warn, LOG_WARN, "warning: ")
LOG_FN(log_info, LOG_INFO, "")
LOG_FN(log_debug, LOG_DEBUG, "debug: ")

bool log_limited(struct log_limit *l)
{
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
	if (!l->window_start_ns || now - l->window_start_ns > LOG_LIMIT_WINDOW_NS) {
		l->window_start_ns = now;
		l->count = 0;
	}
	return l->count++ < LOG_LIMIT_BURST;
}
