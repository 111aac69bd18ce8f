#include "vmm/tokens.h"

#include <assert.h>

void tokens_init(struct tokens *t, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
	assert(rate <= TOKENS_RATE_MAX && burst >= 1 && burst <= TOKENS_RATE_MAX);
	*t = (struct tokens){
		.rate = rate,
		.burst = (int64_t)burst,
		.level = (int64_t)burst,
		.last_ns = now_ns,
	};
}

/*
 * Adds whole tokens and moves last_ns by the time that they stand for, so that no fraction is lost.
 */
static void refill(struct tokens *t, uint64_t now_ns)
{
	uint64_t missing = (uint64_t)(t->burst - t->level);
	unsigned __int128 gain;

	if (now_ns <= t->last_ns)
		return;
	gain = (unsigned __int128)(now_ns - t->last_ns) * t->rate / NSEC_PER_SEC;
	if (gain >= missing) {
		t->level = t->burst;
		t->last_ns = now_ns;
	} else if (gain) {
		t->level += (int64_t)gain;
		t->last_ns += (uint64_t)(gain * NSEC_PER_SEC / t->rate);
	}
}

uint64_t tokens_wait_ns(struct tokens *t, uint64_t now_ns)
{
	unsigned __int128 due;

	if (!t->rate)
		return 0;
	refill(t, now_ns);
	if (t->level > 0)
		return 0;
	due = ((unsigned __int128)(1 - t->level) * NSEC_PER_SEC + t->rate - 1) / t->rate +
	      t->last_ns;
	return due > now_ns ? (uint64_t)(due - now_ns) : 1;
}

void tokens_take(struct tokens *t, uint64_t n)
{
	assert(n <= TOKENS_RATE_MAX);
	if (t->rate)
		t->level -= (int64_t)n;
}
