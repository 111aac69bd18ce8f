/*
 * api/emu/relay: whatever a command and a port send, in whatever order and cuts, memory stays bounded, what is passed
 * on is whole frames without resets, and a new command gets nothing that an older one caused.
 *
 * Input: steps of a byte that says what happens, and what it needs: 0..3 take a length (2 bytes) and bytes: 0, 1
 * from the command, 2, 3 from the port; 4 attach; 5 detach; 6 the right echo; 7 both sides drain.
 */
#include <assert.h>
#include <string.h>

#include "api/emu/relay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define QUEUE_MOST (RELAY_OUT_FULL + GP_HEADER + GP_FRAME_MAX + 2 * RELAY_CHUNK)

static void new_nonce(uint8_t nonce[GP_RESET_NONCE], unsigned n)
{
	memset(nonce, (int)n, GP_RESET_NONCE);
}

/* A queue begins at the start of a frame and ends at the end of one, as nothing is taken out in between. */
static void check_whole(const struct buf *b, bool reset_may_be)
{
	struct frame f;
	const char *why;
	size_t at = 0;
	int n;

	while (at < buf_len(b)) {
		n = frame_parse(buf_ptr(b) + at, buf_len(b) - at, &f, &why);
		assert(n > 0);
		assert(reset_may_be || f.kind != GP_RESET);
		at += (size_t)n;
	}
}

static void check(const struct relay *r)
{
	assert(buf_len(&r->to_client) <= QUEUE_MOST && buf_len(&r->to_port) <= QUEUE_MOST);
	assert(buf_len(&r->from_client) < GP_HEADER + GP_FRAME_MAX + RELAY_CHUNK);
	assert(buf_len(&r->from_port) < GP_HEADER + GP_FRAME_MAX + RELAY_CHUNK);
	check_whole(&r->to_client, false);
	check_whole(&r->to_port, true);
	assert(r->state == RELAY_BUSY || !buf_len(&r->to_client) || r->state == RELAY_DEAD);
}

/* Bytes come as the daemon would read them: only when wanted, at most a chunk. True: the session is over. */
static bool feed(struct relay *r, bool client, const uint8_t *p, size_t len)
{
	if (client)
		return relay_wants_client(r) && relay_client_input(r, p, len);
	return relay_wants_port(r) && relay_port_input(r, p, len) < 0;
}

static void drain(struct relay *r)
{
	buf_consume(&r->to_client, buf_len(&r->to_client));
	buf_consume(&r->to_port, buf_len(&r->to_port));
}

static void echo(struct relay *r)
{
	struct buf b;

	buf_init(&b, 0);
	assert(!frame_put_reset(&b, r->nonce));
	if (relay_wants_port(r) && relay_port_input(r, buf_ptr(&b), buf_len(&b)) < 0)
		assert(r->state == RELAY_DEAD);
	buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t nonce[GP_RESET_NONCE];
	unsigned nonces = 0;
	struct relay r;

	new_nonce(nonce, nonces++);
	assert(!relay_init(&r, nonce));
	while (size && r.state != RELAY_DEAD) {
		unsigned what = *data++ & 7;
		bool over = what == 5;

		size--;
		if (what < 4 && size >= 2) {
			size_t len = MIN((size_t)(data[0] | data[1] << 8), size - 2);

			if (len)
				over = feed(&r, what < 2, data + 2, len) && what < 2;
			data += 2 + len;
			size -= 2 + len;
		} else if (what == 4 && r.state == RELAY_FREE) {
			relay_attach(&r);
		} else if (what == 6) {
			echo(&r);
		} else if (what == 7) {
			drain(&r);
		}
		check(&r);
		if (over && r.state == RELAY_BUSY) {
			new_nonce(nonce, nonces++);
			assert(!relay_detach(&r, nonce));
			check(&r);
		}
	}
	relay_finish(&r);
	return 0;
}
