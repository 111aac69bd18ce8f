#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/*
 * One pass before the parser: nesting, number of values, and the escape that would hide the rest of a string.
 * Whether the text is JSON at all is the parser's business.
 */
static int prescan(const char *s, size_t len, const char *what, struct error *e)
{
	size_t depth = 0, values = 1;
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		if (in_string) {
			if (s[i] == '"')
				in_string = false;
			if (s[i] != '\\')
				continue;
			if (len - i > 5 && !memcmp(s + i, "\\u0000", 6))
				return error_set(e, EINVAL, "%s: a string contains NUL", what);
			i++;
			continue;
		}
		switch (s[i]) {
		case '"':
			in_string = true;
			break;
		case '{':
		case '[':
			if (++depth > JSON_DEPTH_MAX)
				return error_set(e, E2BIG, "%s: nested deeper than %d", what,
					JSON_DEPTH_MAX);
			values++;
			break;
		case '}':
		case ']':
			depth -= depth > 0;
			break;
		case ',':
			values++;
			break;
		case '\0':
			return error_set(e, EINVAL, "%s: contains NUL", what);
		}
		if (values > JSON_VALUES_MAX)
			return error_set(
				e, E2BIG, "%s: more than %d values", what, JSON_VALUES_MAX);
	}
	return 0;
}

int json_parse(cJSON **ret, const void *text, size_t len, const char *what, struct error *e)
{
	const char *s = text, *end = NULL;
	cJSON *j;
	int r = prescan(s, len, what, e);

	if (r)
		return r;
	j = cJSON_ParseWithLengthOpts(s, len, &end, false);
	if (!j)
		return error_set(e, EINVAL, "%s: not JSON at byte %zu", what,
			end ? (size_t)(end - s) : (size_t)0);
	while (end < s + len && (*end == ' ' || *end == '\t' || *end == '\n' || *end == '\r'))
		end++;
	if (end < s + len) {
		cJSON_Delete(j);
		return error_set(e, EINVAL, "%s: not JSON at byte %zu: more follows the value",
			what, (size_t)(end - s));
	}
	*ret = j;
	return 0;
}

/* 1: *ret is the member; 0: absent or null and that is legal. */
static int member(
	const cJSON *o, const char *name, enum json_need need, const cJSON **ret, struct error *e)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, name);

	if (m && !cJSON_IsNull(m)) {
		*ret = m;
		return 1;
	}
	return need == JSON_REQUIRED ? error_set(e, EINVAL, "'%s': is missing", name) : 0;
}

int json_str(const cJSON *o, const char *name, enum json_need need, size_t max, const char **ret,
	struct error *e)
{
	const cJSON *m = NULL;
	int r = member(o, name, need, &m, e);

	if (r <= 0)
		return r;
	if (!cJSON_IsString(m))
		return error_set(e, EINVAL, "'%s': must be a string", name);
	if (strlen(m->valuestring) > max)
		return error_set(e, EINVAL, "'%s': longer than %zu bytes", name, max);
	*ret = m->valuestring;
	return 1;
}

int json_u64(const cJSON *o, const char *name, enum json_need need, uint64_t min, uint64_t max,
	uint64_t *ret, struct error *e)
{
	const cJSON *m = NULL;
	int r = member(o, name, need, &m, e);
	double v;

	if (r <= 0)
		return r;
	v = cJSON_IsNumber(m) ? m->valuedouble : -1;
	if (!(v >= 0 && v < 0x1p64) || v != floor(v) || (uint64_t)v < min || (uint64_t)v > max)
		return error_set(e, EINVAL, "'%s': must be a whole number from %llu to %llu", name,
			(unsigned long long)min, (unsigned long long)max);
	*ret = (uint64_t)v;
	return 1;
}

int json_bool(const cJSON *o, const char *name, enum json_need need, bool *ret, struct error *e)
{
	const cJSON *m = NULL;
	int r = member(o, name, need, &m, e);

	if (r <= 0)
		return r;
	if (!cJSON_IsBool(m))
		return error_set(e, EINVAL, "'%s': must be true or false", name);
	*ret = cJSON_IsTrue(m);
	return 1;
}

int json_object(
	const cJSON *o, const char *name, enum json_need need, const cJSON **ret, struct error *e)
{
	const cJSON *m = NULL;
	int r = member(o, name, need, &m, e);

	if (r <= 0)
		return r;
	if (!cJSON_IsObject(m))
		return error_set(e, EINVAL, "'%s': must be an object", name);
	*ret = m;
	return 1;
}

int json_array(
	const cJSON *o, const char *name, enum json_need need, const cJSON **ret, struct error *e)
{
	const cJSON *m = NULL;
	int r = member(o, name, need, &m, e);

	if (r <= 0)
		return r;
	if (!cJSON_IsArray(m))
		return error_set(e, EINVAL, "'%s': must be an array", name);
	*ret = m;
	return 1;
}

void json_out_init(struct json_out *j)
{
	j->root = cJSON_CreateObject();
	j->failed = !j->root;
}

void json_out_free(struct json_out *j)
{
	cJSON_Delete(j->root);
	j->root = NULL;
}

static cJSON *add(struct json_out *j, cJSON *o, const char *name, cJSON *item)
{
	if (item && o &&
		(name ? cJSON_AddItemToObject(o, name, item) : cJSON_AddItemToArray(o, item)))
		return item;
	cJSON_Delete(item);
	j->failed = true;
	return NULL;
}

void json_add_str(struct json_out *j, cJSON *o, const char *name, const char *value)
{
	add(j, o, name, cJSON_CreateString(value));
}

void json_add_u64(struct json_out *j, cJSON *o, const char *name, uint64_t value)
{
	char digits[24];

	/* cJSON rounds large numbers to 15 digits */
	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	add(j, o, name, cJSON_CreateRaw(digits));
}

void json_add_bool(struct json_out *j, cJSON *o, const char *name, bool value)
{
	add(j, o, name, cJSON_CreateBool(value));
}

cJSON *json_add_object(struct json_out *j, cJSON *o, const char *name)
{
	return add(j, o, name, cJSON_CreateObject());
}

cJSON *json_add_array(struct json_out *j, cJSON *o, const char *name)
{
	return add(j, o, name, cJSON_CreateArray());
}

void json_push_str(struct json_out *j, cJSON *array, const char *value)
{
	add(j, array, NULL, cJSON_CreateString(value));
}

cJSON *json_push_object(struct json_out *j, cJSON *array)
{
	return add(j, array, NULL, cJSON_CreateObject());
}

char *json_print(struct json_out *j, bool pretty)
{
	if (j->failed)
		return NULL;
	return pretty ? cJSON_Print(j->root) : cJSON_PrintUnformatted(j->root);
}
