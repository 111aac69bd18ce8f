#include "guest-init/jwrite.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/frame.h"

static void put(struct jwrite *w, const void *data, size_t len)
{
	if (!w->failed && buf_append(w->out, data, len))
		w->failed = true;
}

void jwrite_begin(struct jwrite *w, struct buf *out)
{
	uint8_t header[GP_HEADER] = { 0 };

	*w = (struct jwrite){ .out = out, .start = buf_len(out) };
	put(w, header, sizeof(header));
}

int jwrite_end(struct jwrite *w)
{
	size_t len = buf_len(w->out) - w->start;

	if (!w->failed && len > GP_HEADER && len - GP_HEADER <= GP_FRAME_MAX) {
		frame_header(buf_ptr(w->out) + w->start, GP_JSON, len - GP_HEADER);
		return 0;
	}
	buf_truncate(w->out, w->start);
	return -ENOBUFS;
}

void jwrite_raw(struct jwrite *w, const char *text)
{
	put(w, text, strlen(text));
}

void jwrite_fmt(struct jwrite *w, const char *fmt, ...)
{
	char text[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		w->failed = true;
	else
		put(w, text, (size_t)n);
}

static bool continues(const char *s, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return false;
	return true;
}

size_t utf8_next(const char *s, size_t len)
{
	unsigned a = (unsigned char)s[0], b = len > 1 ? (unsigned char)s[1] : 0;

	if (a < 0x80)
		return 1;
	if (a >= 0xc2 && a <= 0xdf)
		return len >= 2 && continues(s, 2) ? 2 : 0;
	if (a >= 0xe0 && a <= 0xef) {
		if ((a == 0xe0 && b < 0xa0) || (a == 0xed && b > 0x9f))
			return 0; /* overlong; surrogates */
		return len >= 3 && continues(s, 3) ? 3 : 0;
	}
	if (a >= 0xf0 && a <= 0xf4) {
		if ((a == 0xf0 && b < 0x90) || (a == 0xf4 && b > 0x8f))
			return 0;
		return len >= 4 && continues(s, 4) ? 4 : 0;
	}
	return 0;
}

/* Bytes at the front of @s that may stand in a JSON string as they are. */
static size_t plain(const char *s, size_t len)
{
	size_t i = 0, n;

	while (i < len) {
		if ((unsigned char)s[i] < 0x20 || s[i] == '"' || s[i] == '\\' || s[i] == 0x7f)
			break;
		n = utf8_next(s + i, len - i);
		if (!n)
			break;
		i += n;
	}
	return i;
}

void jwrite_str(struct jwrite *w, const char *s, size_t len)
{
	size_t n;

	put(w, "\"", 1);
	while (len) {
		n = plain(s, len);
		put(w, s, n);
		s += n;
		len -= n;
		if (!len)
			break;
		if (*s == '"' || *s == '\\')
			jwrite_fmt(w, "\\%c", *s);
		else if ((unsigned char)*s < 0x80)
			jwrite_fmt(w, "\\u%04x", (unsigned)*s);
		else
			put(w, "\xef\xbf\xbd", 3);
		s++;
		len--;
	}
	put(w, "\"", 1);
}

void jwrite_text(struct jwrite *w, const char *s)
{
	jwrite_str(w, s, strlen(s));
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void jwrite_base64(struct jwrite *w, const uint8_t *data, size_t len)
{
	size_t text = (len + 2) / 3 * 4;
	uint8_t *p = w->failed ? NULL : buf_reserve(w->out, text + 2);

	if (!p) {
		w->failed = true;
		return;
	}
	*p++ = '"';
	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)data[i] << 16;

		if (i + 1 < len)
			v |= (uint32_t)data[i + 1] << 8;
		if (i + 2 < len)
			v |= data[i + 2];
		*p++ = (uint8_t)digits[v >> 18];
		*p++ = (uint8_t)digits[v >> 12 & 63];
		*p++ = i + 1 < len ? (uint8_t)digits[v >> 6 & 63] : '=';
		*p++ = i + 2 < len ? (uint8_t)digits[v & 63] : '=';
	}
	*p = '"';
	buf_commit(w->out, text + 2);
}

static int digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Four characters, @pad of which are '='; false: they aren't. */
static bool group(const char *t, int pad, uint32_t *ret)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++) {
		int d = i >= 4 - pad ? 0 : digit(t[i]);

		if (d < 0)
			return false;
		v = v << 6 | (uint32_t)d;
	}
	*ret = v;
	return true;
}

bool base64_decode(const char *text, size_t len, uint8_t *ret, size_t *ret_len)
{
	size_t out = 0;
	uint32_t v;

	if (len % 4)
		return false;
	for (size_t i = 0; i < len; i += 4) {
		int pad = 0;

		if (i + 4 == len && text[i + 3] == '=')
			pad = text[i + 2] == '=' ? 2 : 1;
		if (!group(text + i, pad, &v))
			return false;
		ret[out++] = (uint8_t)(v >> 16);
		if (pad < 2)
			ret[out++] = (uint8_t)(v >> 8);
		if (pad < 1)
			ret[out++] = (uint8_t)v;
	}
	*ret_len = out;
	return true;
}
