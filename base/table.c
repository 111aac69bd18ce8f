#include "base/table.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>

#define HELP_COLUMN 28
#define HELP_WIDTH  80

struct parser {
	const struct table *t;
	void *obj;
	int argc, next;
	char *const *argv;
	uint64_t *seen; /* one bit a field */
	bool help;
};

int table_list_add(struct table_list *l, const char *item)
{
	size_t cap = l->cap ? l->cap * 2 : 8;
	const char **items = l->items;

	if (l->n >= TABLE_LIST_MAX)
		return -E2BIG;
	if (l->n + 1 >= l->cap) {
		items = realloc(l->items, cap * sizeof(*items));
		if (!items)
			return -ENOMEM;
		l->items = items;
		l->cap = cap;
	}
	items[l->n++] = item;
	items[l->n] = NULL;
	return 0;
}

void table_list_free(struct table_list *l)
{
	free(l->items);
	*l = (struct table_list){ 0 };
}

/* Digits, then whatever follows them in *end. */
static int parse_number(const char *text, uint64_t *ret, const char **end)
{
	uint64_t v = 0;
	const char *s = text;

	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	if (s == text)
		return -EINVAL;
	*ret = v;
	*end = s;
	return 0;
}

int table_size(const char *text, uint64_t *ret)
{
	static const char units[] = "kmgt";
	const char *end = NULL, *unit;
	uint64_t v = 0;
	unsigned shift = 0;
	int r = parse_number(text, &v, &end);

	if (r)
		return r;
	if (*end) {
		unit = strchr(units, tolower((unsigned char)*end));
		if (!unit)
			return -EINVAL;
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (*end && strcasecmp(end, "b") && strcasecmp(end, "ib"))
			return -EINVAL;
	}
	if (shift && v >> (64 - shift))
		return -ERANGE;
	*ret = v << shift;
	return 0;
}

int table_duration(const char *text, uint64_t *ret)
{
	static const struct {
		const char *suffix;
		uint64_t ns;
	} units[] = { { "", NSEC_PER_SEC }, { "s", NSEC_PER_SEC }, { "ms", NSEC_PER_MSEC },
		{ "m", 60 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC } };
	const char *end = NULL;
	uint64_t v = 0;
	int r = parse_number(text, &v, &end);

	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (!strcmp(end, units[i].suffix))
			return __builtin_mul_overflow(v, units[i].ns, ret) ? -ERANGE : 0;
	return -EINVAL;
}

const char *table_format_size(char *buf, size_t size, uint64_t bytes)
{
	if (bytes && bytes % GIB == 0)
		snprintf(buf, size, "%llu GiB", (unsigned long long)(bytes / GIB));
	else if (bytes && bytes % MIB == 0)
		snprintf(buf, size, "%llu MiB", (unsigned long long)(bytes / MIB));
	else if (bytes && bytes % KIB == 0)
		snprintf(buf, size, "%llu KiB", (unsigned long long)(bytes / KIB));
	else
		snprintf(buf, size, "%llu bytes", (unsigned long long)bytes);
	return buf;
}

const char *table_format_duration(char *buf, size_t size, uint64_t ns)
{
	if (ns % NSEC_PER_SEC)
		snprintf(buf, size, "%llums", (unsigned long long)(ns / NSEC_PER_MSEC));
	else
		snprintf(buf, size, "%llus", (unsigned long long)(ns / NSEC_PER_SEC));
	return buf;
}

static void format_value(char *buf, size_t size, enum table_type type, uint64_t v)
{
	if (type == TABLE_SIZE)
		table_format_size(buf, size, v);
	else if (type == TABLE_DURATION)
		table_format_duration(buf, size, v);
	else
		snprintf(buf, size, "%llu", (unsigned long long)v);
}

static int set_number(const struct table_field *f, void *at, const char *text, struct error *e)
{
	static const char *const forms[] = {
		[TABLE_INT] = "a whole number",
		[TABLE_SIZE] = "a size such as 512m or 2g",
		[TABLE_DURATION] = "a time such as 30s or 5m",
	};
	char lo[32], hi[32];
	const char *end = NULL;
	uint64_t v = 0;
	int r;

	if (f->type == TABLE_SIZE) {
		r = table_size(text, &v);
	} else if (f->type == TABLE_DURATION) {
		r = table_duration(text, &v);
	} else {
		r = parse_number(text, &v, &end);
		if (!r && *end)
			r = -EINVAL;
	}
	if (r == -EINVAL)
		return error_set(e, EINVAL, "--%s '%s': not %s", f->name, text, forms[f->type]);
	format_value(lo, sizeof(lo), f->type, f->min);
	format_value(hi, sizeof(hi), f->type, f->max);
	if (r || v < f->min || (f->max && v > f->max)) {
		if (!f->max)
			return error_set(e, EINVAL, "--%s '%s': must be %s %s", f->name, text,
				r ? "smaller; at least" : "at least", lo);
		return error_set(
			e, EINVAL, "--%s '%s': must be from %s to %s", f->name, text, lo, hi);
	}
	memcpy(at, &v, sizeof(v));
	return 0;
}

static int set_enum(const struct table_field *f, int *at, const char *text, struct error *e)
{
	char all[256] = "";
	size_t len = 0;

	for (int i = 0; f->choices[i]; i++) {
		if (!strcmp(f->choices[i], text)) {
			*at = i;
			return 0;
		}
		len += (size_t)snprintf(all + MIN(len, sizeof(all)),
			sizeof(all) - MIN(len, sizeof(all)), "%s%s", i ? ", " : "", f->choices[i]);
	}
	return error_set(e, EINVAL, "--%s '%s': must be one of %s", f->name, text, all);
}

int table_set(const struct table_field *f, void *obj, const char *text, struct error *e)
{
	void *at = (char *)obj + f->offset;
	int r;

	switch (f->type) {
	case TABLE_FLAG:
		*(bool *)at = true;
		return 0;
	case TABLE_INT:
	case TABLE_SIZE:
	case TABLE_DURATION:
		return set_number(f, at, text, e);
	case TABLE_STRING:
		if (!*text && f->min)
			return error_set(e, EINVAL, "--%s: must not be empty", f->name);
		*(const char **)at = text;
		return 0;
	case TABLE_LIST:
		r = table_list_add(at, text);
		return r ? error_set(e, -r, "--%s: %s", f->name, strerror(-r)) : 0;
	case TABLE_ENUM:
		return set_enum(f, at, text, e);
	}
	assert(!"table field of no type");
	return -EINVAL;
}

void table_defaults(const struct table *t, void *obj)
{
	memset(obj, 0, t->size);
	for (size_t i = 0; i < t->nfields; i++)
		if (t->fields[i].def) {
			int r = table_set(&t->fields[i], obj, t->fields[i].def, NULL);

			assert(!r);
			(void)r;
		}
}

void table_free(const struct table *t, void *obj)
{
	for (size_t i = 0; i < t->nfields; i++)
		if (t->fields[i].type == TABLE_LIST)
			table_list_free(
				(struct table_list *)(void *)((char *)obj + t->fields[i].offset));
}

/* Levenshtein's distance, for names a person typed; long ones never match. */
static size_t distance(const char *a, const char *b)
{
	size_t row[33], la = strlen(a), lb = strlen(b), diag, up;

	if (la > 32 || lb > 32)
		return SIZE_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		diag = row[0];
		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			up = row[j];
			row[j] = MIN(MIN(row[j], row[j - 1]) + 1, diag + (a[i - 1] != b[j - 1]));
			diag = up;
		}
	}
	return row[lb];
}

const char *table_nearest(const char *typed, const char *const *names)
{
	const char *best = NULL;
	size_t len = strlen(typed), best_d = SIZE_MAX, d;

	for (; *names; names++) {
		d = distance(typed, *names);
		if (len >= 2 && !strncmp(typed, *names, len))
			d = 1; /* the beginning of a name */
		if (d < best_d) {
			best_d = d;
			best = *names;
		}
	}
	return best_d <= 1 + len / 3 && best_d < len ? best : NULL;
}

static int unknown_option(const struct parser *p, const char *name, struct error *e)
{
	const char **names = calloc(p->t->nfields + 2, sizeof(*names));
	const char *near = NULL;
	size_t n = 0;

	if (names) {
		for (size_t i = 0; i < p->t->nfields; i++)
			if (!p->t->fields[i].hidden)
				names[n++] = p->t->fields[i].name;
		names[n] = "help";
		near = table_nearest(name, names);
	}
	if (near)
		error_set(e, EINVAL, "no option --%s; did you mean --%s?", name, near);
	else
		error_set(e, EINVAL, "no option --%s; '%s --help' lists them", name, p->t->name);
	free(names);
	return -EINVAL;
}

static int apply(struct parser *p, const struct table_field *f, const char *value, struct error *e)
{
	size_t i = (size_t)(f - p->t->fields);

	p->seen[i / 64] |= UINT64_C(1) << (i % 64);
	return table_set(f, p->obj, value, e);
}

static int take_value(
	struct parser *p, const struct table_field *f, const char **ret, struct error *e)
{
	if (p->next >= p->argc)
		return error_set(
			e, EINVAL, "--%s: needs a value: --%s %s", f->name, f->name, f->arg);
	*ret = p->argv[p->next++];
	return 0;
}

static int parse_long(struct parser *p, const char *arg, struct error *e)
{
	const char *eq = strchr(arg, '='), *value = eq ? eq + 1 : NULL;
	size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
	const struct table_field *f = NULL;
	char name[64];
	int r;

	if (!value && !strcmp(arg, "help")) {
		p->help = true;
		return 0;
	}
	for (size_t i = 0; i < p->t->nfields && !f; i++)
		if (strlen(p->t->fields[i].name) == len && !strncmp(p->t->fields[i].name, arg, len))
			f = &p->t->fields[i];
	if (!f) {
		snprintf(name, sizeof(name), "%.*s", (int)MIN(len, sizeof(name) - 1), arg);
		return unknown_option(p, name, e);
	}
	if (f->type == TABLE_FLAG && value)
		return error_set(e, EINVAL, "--%s: takes no value", f->name);
	if (f->type != TABLE_FLAG && !value) {
		value = f->implicit;
		r = value ? 0 : take_value(p, f, &value, e);
		if (r)
			return r;
	}
	return apply(p, f, value, e);
}

static int parse_short(struct parser *p, const char *arg, struct error *e)
{
	const struct table_field *f;
	const char *value;
	int r;

	for (; *arg; arg++) {
		f = NULL;
		for (size_t i = 0; i < p->t->nfields && !f; i++)
			if (p->t->fields[i].letter == *arg)
				f = &p->t->fields[i];
		if (!f && *arg == 'h') {
			p->help = true;
			continue;
		}
		if (!f)
			return error_set(e, EINVAL, "no option -%c; '%s --help' lists them", *arg,
				p->t->name);
		if (f->type == TABLE_FLAG) {
			r = apply(p, f, NULL, e);
			if (r)
				return r;
			continue;
		}
		value = arg + 1;
		r = *value ? 0 : take_value(p, f, &value, e);
		return r ? r : apply(p, f, value, e);
	}
	return 0;
}

static int check_complete(
	const struct parser *p, const struct table_list *operands, struct error *e)
{
	const struct table *t = p->t;

	for (size_t i = 0; i < t->nfields; i++)
		if (t->fields[i].required && !(p->seen[i / 64] >> (i % 64) & 1))
			return error_set(e, EINVAL, "--%s %s is needed; see '%s --help'",
				t->fields[i].name, t->fields[i].arg, t->name);
	if (operands->n < t->min_operands)
		return error_set(e, EINVAL, "too few arguments; usage: %s [OPTION...] %s", t->name,
			t->operands ? t->operands : "");
	if (operands->n > t->max_operands)
		return error_set(e, EINVAL,
			"argument '%s' is one too many; usage: %s [OPTION...]%s%s",
			operands->items[t->max_operands], t->name, t->operands ? " " : "",
			t->operands ? t->operands : "");
	return 0;
}

static int parse_all(struct parser *p, struct table_list *operands, struct error *e)
{
	bool options = true;
	int r = 0;

	while (p->next < p->argc && !r && !p->help) {
		const char *arg = p->argv[p->next++];

		if (options && !strcmp(arg, "--")) {
			options = false;
		} else if (options && arg[0] == '-' && arg[1] == '-') {
			r = parse_long(p, arg + 2, e);
		} else if (options && arg[0] == '-' && arg[1]) {
			r = parse_short(p, arg + 1, e);
		} else {
			r = table_list_add(operands, arg);
			if (r)
				return error_set(e, -r, "too many arguments");
			options = options && !p->t->operands_end_options;
		}
	}
	return r;
}

int table_parse(const struct table *t, void *obj, int argc, char *const *argv,
	struct table_list *operands, struct error *e)
{
	struct parser p = { .t = t, .obj = obj, .argc = argc, .argv = argv };
	int r;

	p.seen = calloc(t->nfields / 64 + 1, sizeof(*p.seen));
	if (!p.seen)
		return error_set(e, ENOMEM, "out of memory");
	r = parse_all(&p, operands, e);
	if (!r && !p.help)
		r = check_complete(&p, operands, e);
	free(p.seen);
	return r ? r : p.help ? TABLE_HELP : TABLE_OK;
}

/* Words of @text from column @col on, wrapped at HELP_WIDTH. */
static void print_wrapped(FILE *f, const char *text, size_t indent)
{
	size_t col = indent, len;

	while (*text) {
		len = strcspn(text, " ");
		if (col > indent && col + 1 + len > HELP_WIDTH) {
			fprintf(f, "\n%*s", (int)indent, "");
			col = indent;
		} else if (col > indent) {
			fputc(' ', f);
			col++;
		}
		fprintf(f, "%.*s", (int)len, text);
		col += len;
		text += len + strspn(text + len, " ");
	}
	fputc('\n', f);
}

static void print_option(FILE *f, const struct table_field *o)
{
	char left[96], right[512];
	int n;

	n = o->letter ? snprintf(left, sizeof(left), "  -%c, --%s", o->letter, o->name)
		      : snprintf(left, sizeof(left), "      --%s", o->name);
	if (o->type != TABLE_FLAG && n > 0 && (size_t)n < sizeof(left))
		n += snprintf(
			left + n, sizeof(left) - (size_t)n, o->implicit ? "[=%s]" : " %s", o->arg);
	snprintf(right, sizeof(right), "%s%s%s%s", o->help, o->def ? " (default " : "",
		o->def ? o->def : "", o->def ? ")" : "");
	if (n < HELP_COLUMN - 1)
		fprintf(f, "%-*s", HELP_COLUMN, left);
	else
		fprintf(f, "%s\n%*s", left, HELP_COLUMN, "");
	print_wrapped(f, right, HELP_COLUMN);
}

void table_help(const struct table *t, FILE *f)
{
	fprintf(f, "Usage: %s [OPTION...]%s%s\n\n%s.\n", t->name, t->operands ? " " : "",
		t->operands ? t->operands : "", t->summary);
	if (t->text)
		fprintf(f, "\n%s\n", t->text);
	fprintf(f, "\nOptions:\n");
	for (size_t i = 0; i < t->nfields; i++)
		if (!t->fields[i].hidden)
			print_option(f, &t->fields[i]);
	fprintf(f, "  -h, --help%*sShow this help\n", HELP_COLUMN - 12, "");
}
