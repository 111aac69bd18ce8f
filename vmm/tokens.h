/*
 * vmm/tokens.h - token bucket: so many operations or bytes a second, bursts up to a limit
 *
 * A taker may overdraw once (so that one request above the burst still passes) and then waits until
 * the debt is paid. Times are CLOCK_MONOTONIC and passed in, so that tests own the clock.
 */
#pragma once

#include "base/util.h"

struct tokens {
	uint64_t rate; /* a second; 0: no limit */
	int64_t burst;
	int64_t level; /* <= burst; negative: debt */
	uint64_t last_ns;
};

#define TOKENS_RATE_MAX (UINT64_C(1) << 40)

/*
 * tokens_init() - Start full. @rate <= TOKENS_RATE_MAX, 0 for no limit; @burst 1..TOKENS_RATE_MAX.
 */
void tokens_init(struct tokens *t, uint64_t rate, uint64_t burst, uint64_t now_ns);
/* tokens_wait_ns() - 0: something may be taken now; else how long until then. */
uint64_t tokens_wait_ns(struct tokens *t, uint64_t now_ns);
/* tokens_take() - Take @n, even if that makes a debt; @n <= TOKENS_RATE_MAX. */
void tokens_take(struct tokens *t, uint64_t n);
