#include "guest-init/jread.h"

#include <errno.h>
#include <string.h>

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS /* without them a closing bracket is looked for through all tokens */
#include <jsmn.h>

#define FEW_TOKENS 256

struct jread {
	const char *text;
	jsmntok_t *tok; /* few or many; value v is tok[v - 1] */
	int n;
	jsmntok_t *many;
	jsmntok_t few[FEW_TOKENS];
};

struct jread *jread_create(void)
{
	return calloc(1, sizeof(struct jread));
}

void jread_destroy(struct jread *j)
{
	if (j)
		free(j->many);
	free(j);
}

void jread_done(struct jread *j)
{
	free(j->many);
	j->many = NULL;
	j->tok = j->few;
	j->n = 0;
}

static const jsmntok_t *token(const struct jread *j, int value)
{
	return &j->tok[value - 1];
}

static bool too_deep(const char *text, size_t len)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (in_string) {
			if (text[i] == '\\')
				i++;
			else if (text[i] == '"')
				in_string = false;
		} else if (text[i] == '"') {
			in_string = true;
		} else if (text[i] == '{' || text[i] == '[') {
			if (++depth > JREAD_DEPTH_MAX)
				return true;
		} else if ((text[i] == '}' || text[i] == ']') && depth) {
			depth--;
		}
	}
	return false;
}

static int run_jsmn(struct jread *j, jsmntok_t *tok, unsigned n, size_t len)
{
	jsmn_parser p;

	jsmn_init(&p);
	j->tok = tok;
	j->n = jsmn_parse(&p, j->text, len, tok, n);
	if (j->n >= 0 && p.pos != len) /* it stops at NUL */
		return JSMN_ERROR_INVAL;
	return j->n;
}

/* Index after @i and all below it. */
static int skip(const struct jread *j, int i)
{
	int end = j->tok[i].end;

	for (i++; i < j->n && j->tok[i].start < end; i++)
		;
	return i;
}

int jread_parse(struct jread *j, const char *text, size_t len)
{
	int r;

	jread_done(j);
	j->text = text;
	if (too_deep(text, len))
		return -E2BIG;
	r = run_jsmn(j, j->few, FEW_TOKENS, len);
	if (r == JSMN_ERROR_NOMEM) {
		j->many = malloc(JREAD_TOKENS_MAX * sizeof(*j->many));
		if (!j->many)
			return -ENOMEM;
		r = run_jsmn(j, j->many, JREAD_TOKENS_MAX, len);
	}
	if (r > 0 && j->tok[0].type == JSMN_OBJECT && skip(j, 0) == r)
		return 0;
	jread_done(j);
	return r == JSMN_ERROR_NOMEM ? -E2BIG : -EBADMSG;
}

static bool raw_is(const struct jread *j, const jsmntok_t *t, const char *text)
{
	size_t len = (size_t)(t->end - t->start);

	return len == strlen(text) && !memcmp(j->text + t->start, text, len);
}

enum jread_type jread_type(const struct jread *j, int value)
{
	const jsmntok_t *t;

	if (!value)
		return JREAD_NONE;
	t = token(j, value);
	if (t->type == JSMN_OBJECT)
		return JREAD_OBJECT;
	if (t->type == JSMN_ARRAY)
		return JREAD_ARRAY;
	if (t->type == JSMN_STRING)
		return JREAD_STRING;
	switch (j->text[t->start]) {
	case 't':
	case 'f':
		return JREAD_BOOL;
	case 'n':
		return JREAD_NONE;
	default:
		return JREAD_NUMBER;
	}
}

const char *jread_type_name(enum jread_type t)
{
	static const char *const names[] = {
		[JREAD_NONE] = "undefined",
		[JREAD_OBJECT] = "object",
		[JREAD_ARRAY] = "array",
		[JREAD_STRING] = "string",
		[JREAD_NUMBER] = "number",
		[JREAD_BOOL] = "boolean",
	};

	return names[t];
}

int jread_value(const struct jread *j, int name)
{
	const jsmntok_t *t = token(j, name);

	/* The parser accepts {"a" "b"}: a name has exactly one thing below it. */
	if (t->type != JSMN_STRING || t->size != 1 || name >= j->n)
		return 0;
	if (token(j, name + 1)->parent != name - 1)
		return 0;
	return jread_type(j, name + 1) == JREAD_NONE ? 0 : name + 1;
}

int jread_first(const struct jread *j, int container)
{
	enum jread_type t = jread_type(j, container);

	if ((t != JREAD_OBJECT && t != JREAD_ARRAY) || container >= j->n)
		return 0;
	return j->tok[container].start < token(j, container)->end ? container + 1 : 0;
}

int jread_next(const struct jread *j, int container, int element)
{
	int i = element - 1;

	if (token(j, container)->type == JSMN_OBJECT && token(j, element)->size && i + 1 < j->n)
		i++;
	i = skip(j, i);
	return i < j->n && j->tok[i].start < token(j, container)->end ? i + 1 : 0;
}

int jread_get(const struct jread *j, int object, const char *name)
{
	int found = 0;

	if (jread_type(j, object) != JREAD_OBJECT)
		return 0;
	for (int k = jread_first(j, object); k; k = jread_next(j, object, k))
		if (jread_is(j, k, name))
			found = jread_value(j, k);
	return found;
}

size_t jread_count(const struct jread *j, int container)
{
	size_t n = 0;

	/* Not the parser's own figure: for [1:2] it differs from what jread_next() yields. */
	for (int e = jread_first(j, container); e; e = jread_next(j, container, e))
		n++;
	return n;
}

bool jread_u64(const struct jread *j, int value, uint64_t *ret)
{
	uint64_t v = 0;

	if (jread_type(j, value) != JREAD_NUMBER)
		return false;
	for (int i = token(j, value)->start; i < token(j, value)->end; i++) {
		unsigned d = (unsigned)(unsigned char)j->text[i] - '0';

		if (d > 9 || v > (UINT64_MAX - d) / 10)
			return false;
		v = v * 10 + d;
	}
	*ret = v;
	return true;
}

bool jread_bool(const struct jread *j, int value, bool *ret)
{
	if (jread_type(j, value) != JREAD_BOOL)
		return false;
	*ret = raw_is(j, token(j, value), "true");
	return *ret || raw_is(j, token(j, value), "false");
}

size_t jread_len(const struct jread *j, int value)
{
	return (size_t)(token(j, value)->end - token(j, value)->start) + 1;
}

/* Four hexadecimal digits; the parser has checked that they are. */
static unsigned hex4(const char *s)
{
	unsigned v = 0;

	for (int i = 0; i < 4; i++)
		v = v << 4 | (unsigned)(s[i] <= '9' ? s[i] - '0' : (s[i] | 0x20) - 'a' + 10);
	return v;
}

static size_t put_utf8(char *out, unsigned c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* One \uXXXX at @s, of @left bytes, or a pair of them; returns the bytes read. */
static size_t unicode_escape(const char *s, size_t left, unsigned *ret)
{
	unsigned c = hex4(s + 2), low;

	*ret = c;
	if (c < 0xd800 || c > 0xdfff)
		return 6;
	*ret = 0xfffd;
	if (c > 0xdbff || left < 12 || s[6] != '\\' || s[7] != 'u')
		return 6;
	low = hex4(s + 8);
	if (low < 0xdc00 || low > 0xdfff)
		return 6;
	*ret = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
	return 12;
}

static char simple_escape(char c)
{
	switch (c) {
	case 'b':
		return '\b';
	case 'f':
		return '\f';
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	default:
		return c; /* quote, slash, backslash */
	}
}

void jread_str(const struct jread *j, int value, char *ret, size_t *ret_len)
{
	const char *s = j->text + token(j, value)->start;
	size_t left = jread_len(j, value) - 1, n, out = 0;
	unsigned c;

	/* What an escape becomes is never longer than itself. */
	while (left) {
		n = 1;
		if (*s != '\\' || left < 2) {
			ret[out++] = *s;
		} else if (s[1] == 'u' && left >= 6) {
			n = unicode_escape(s, left, &c);
			out += put_utf8(ret + out, c);
		} else {
			ret[out++] = simple_escape(s[1]);
			n = 2;
		}
		s += n;
		left -= n;
	}
	ret[out] = '\0';
	*ret_len = out;
}

bool jread_is(const struct jread *j, int value, const char *text)
{
	char buf[64];
	size_t len;

	if (jread_type(j, value) != JREAD_STRING)
		return false;
	if (!memchr(j->text + token(j, value)->start, '\\', jread_len(j, value) - 1))
		return raw_is(j, token(j, value), text);
	if (jread_len(j, value) > sizeof(buf))
		return false;
	jread_str(j, value, buf, &len);
	return len == strlen(text) && !memcmp(buf, text, len);
}
