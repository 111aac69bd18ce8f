/*
 * base/json.h - JSON from and to text, with bounds, over cJSON
 *
 * Trust:   the text may come from a guest, a peer or a client: its length, nesting and number of values are
 *          checked before cJSON allocates anything.
 * Getters: 1 the member is there and of the type; 0 absent or null (and JSON_OPTIONAL); -EINVAL with a message
 *          naming the member. Outputs are written only on 1.
 * Spec:    RFC 8259; a repeated member: the first counts; "\u0000" in a string is refused.
 */
#pragma once

#include <cjson/cJSON.h>

#include "base/error.h"

#define JSON_DEPTH_MAX  32
#define JSON_VALUES_MAX 65536
#define JSON_INT_MAX    UINT64_C(9007199254740991) /* RFC 8259, 6: 2^53 - 1 */

enum json_need { JSON_OPTIONAL, JSON_REQUIRED };

/* Frees the tree when it leaves scope. */
static inline void json_freep(cJSON **j)
{
	cJSON_Delete(*j);
}
#define autojson __attribute__((cleanup(json_freep)))

/**
 * json_parse() - One value and nothing after it
 * @what: names the text in the message: "kernel.json"
 *
 * Errors: -EINVAL malformed, -E2BIG over a limit, -ENOMEM.
 */
int json_parse(
	cJSON **ret, const void *text, size_t len, const char *what, struct error *e) must_check;

/* json_str() - @ret is borrowed from @o; longer than @max bytes is an error. */
int json_str(const cJSON *o, const char *name, enum json_need need, size_t max, const char **ret,
	struct error *e) must_check;
/* json_u64() - A whole number in min..max; above JSON_INT_MAX with the precision of a double. */
int json_u64(const cJSON *o, const char *name, enum json_need need, uint64_t min, uint64_t max,
	uint64_t *ret, struct error *e) must_check;
int json_bool(const cJSON *o, const char *name, enum json_need need, bool *ret,
	struct error *e) must_check;
int json_object(const cJSON *o, const char *name, enum json_need need, const cJSON **ret,
	struct error *e) must_check;
int json_array(const cJSON *o, const char *name, enum json_need need, const cJSON **ret,
	struct error *e) must_check;

/*
 * Building: a tree that remembers whether memory ran out, so that one check at the end (json_print()) serves
 * for a whole chain of additions. The functions accept the NULL that a failed one returned as their @o.
 * Strings are copied. They may hold any bytes but NUL; invalid UTF-8 goes out as it is.
 */
struct json_out {
	cJSON *root; /* an object */
	bool failed;
};

void json_out_init(struct json_out *j);
void json_out_free(struct json_out *j);
void json_add_str(struct json_out *j, cJSON *o, const char *name, const char *value);
void json_add_u64(struct json_out *j, cJSON *o, const char *name, uint64_t value);
void json_add_bool(struct json_out *j, cJSON *o, const char *name, bool value);
cJSON *json_add_object(struct json_out *j, cJSON *o, const char *name);
cJSON *json_add_array(struct json_out *j, cJSON *o, const char *name);
void json_push_str(struct json_out *j, cJSON *array, const char *value);
cJSON *json_push_object(struct json_out *j, cJSON *array);
/* json_print() - Text, freed by the caller; NULL if memory ran out now or before. @pretty: with newlines. */
char *json_print(struct json_out *j, bool pretty) must_check;
