#include "api/emu/relay.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* A frame of the largest size and what one input call adds to it. */
#define FRAME_MOST (GP_HEADER + GP_FRAME_MAX + RELAY_CHUNK)

static const uint8_t relay_next[RELAY_STATES] = {
	[RELAY_RESETTING] = 1 << RELAY_FREE | 1 << RELAY_DEAD,
	[RELAY_FREE] = 1 << RELAY_BUSY | 1 << RELAY_DEAD,
	[RELAY_BUSY] = 1 << RELAY_RESETTING | 1 << RELAY_DEAD,
	[RELAY_DEAD] = 0,
};

const char *relay_state_name(enum relay_state s)
{
	static const char *const names[] = {
		[RELAY_RESETTING] = "resetting",
		[RELAY_FREE] = "free",
		[RELAY_BUSY] = "busy",
		[RELAY_DEAD] = "dead",
	};

	return s < RELAY_STATES ? names[s] : "?";
}

static void relay_set(struct relay *r, enum relay_state s)
{
	assert(relay_next[r->state] & 1 << s);
	r->state = s;
}

static int put_reset(struct relay *r, const uint8_t nonce[GP_RESET_NONCE])
{
	memcpy(r->nonce, nonce, GP_RESET_NONCE);
	return frame_put_reset(&r->to_port, nonce);
}

int relay_init(struct relay *r, const uint8_t nonce[GP_RESET_NONCE])
{
	memset(r, 0, sizeof(*r));
	buf_init(&r->from_client, FRAME_MOST);
	buf_init(&r->from_port, FRAME_MOST);
	buf_init(&r->to_client, RELAY_OUT_FULL + FRAME_MOST);
	buf_init(&r->to_port, RELAY_OUT_FULL + FRAME_MOST + GP_HEADER + GP_RESET_NONCE);
	r->state = RELAY_RESETTING;
	return put_reset(r, nonce);
}

void relay_finish(struct relay *r)
{
	buf_free(&r->from_client);
	buf_free(&r->from_port);
	buf_free(&r->to_port);
	buf_free(&r->to_client);
}

void relay_attach(struct relay *r)
{
	assert(!buf_len(&r->from_client) && !buf_len(&r->to_client));
	relay_set(r, RELAY_BUSY);
}

int relay_detach(struct relay *r, const uint8_t nonce[GP_RESET_NONCE])
{
	int ret;

	buf_consume(&r->from_client, buf_len(&r->from_client));
	buf_consume(&r->to_client, buf_len(&r->to_client));
	relay_set(r, RELAY_RESETTING);
	ret = put_reset(r, nonce);
	if (ret)
		relay_set(r, RELAY_DEAD);
	return ret;
}

void relay_kill(struct relay *r)
{
	if (r->state != RELAY_DEAD)
		relay_set(r, RELAY_DEAD);
}

bool relay_wants_client(const struct relay *r)
{
	return r->state == RELAY_BUSY && buf_len(&r->to_port) < RELAY_OUT_FULL;
}

bool relay_wants_port(const struct relay *r)
{
	return r->state != RELAY_DEAD && buf_len(&r->to_client) < RELAY_OUT_FULL;
}

/* Move the whole frames of @in to @out. A GP_RESET is for us: 1 if it is the echo waited for. */
static int pass_frames(struct relay *r, struct buf *in, struct buf *out, bool keep)
{
	bool answered = false;
	struct frame f;
	const char *why;
	int n;

	while ((n = frame_parse(buf_ptr(in), buf_len(in), &f, &why)) > 0) {
		int ret = 0;

		if (f.kind == GP_RESET) {
			if (in == &r->from_client || r->state != RELAY_RESETTING)
				return -EPROTO;
			/* Another nonce is the echo of an earlier reset, which this one has overtaken. */
			answered |= !memcmp(f.data, r->nonce, GP_RESET_NONCE);
			if (answered)
				relay_set(r, RELAY_FREE);
		} else if (keep) {
			ret = buf_append(out, buf_ptr(in), (size_t)n);
		}
		if (ret)
			return ret;
		buf_consume(in, (size_t)n);
	}
	return n < 0 ? n : answered;
}

int relay_client_input(struct relay *r, const uint8_t *data, size_t len)
{
	int ret;

	assert(r->state == RELAY_BUSY && len <= RELAY_CHUNK);
	ret = buf_append(&r->from_client, data, len);
	return ret ? ret : pass_frames(r, &r->from_client, &r->to_port, true);
}

int relay_port_input(struct relay *r, const uint8_t *data, size_t len)
{
	int ret;

	assert(r->state != RELAY_DEAD && len <= RELAY_CHUNK);
	ret = buf_append(&r->from_port, data, len);
	/* Frames for a command that is gone have nowhere to go. */
	if (!ret)
		ret = pass_frames(r, &r->from_port, &r->to_client, r->state == RELAY_BUSY);
	if (ret < 0)
		relay_set(r, RELAY_DEAD);
	return ret;
}
