#include "tests/lib/agent_peer.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "guest-init/jwrite.h"
#include "tests/lib/test.h"

#define PATIENCE_MS 60000 /* for anything that must come */

uint64_t peer_hash(uint64_t h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static _Noreturn void serve(int fd, unsigned flags, const char *cgroup)
{
	struct guest_config c = {
		.init_ns = 1, .default_user = NULL, .cgroup = cgroup, .log_fd = -1
	};
	struct guest_agent *a;
	int r;

	if (getenv("AGENT_LOG")) /* to see why a connection ended */
		c.log_fd = 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL); /* as PID 1 finds them, whatever started this test */
	r = guest_agent_create(&a, &c);
	if (!r)
		r = guest_agent_add_conn(a, fd, flags);
	if (!r)
		r = guest_agent_run(a);
	if (r) {
		fprintf(stderr, "agent: %s\n", strerror(-r));
		exit(1);
	}
	guest_agent_destroy(a);
	exit(0);
}

void peer_start(struct peer *p, unsigned flags, const char *cgroup)
{
	int fd[2];

	memset(p, 0, sizeof(*p));
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
	fflush(NULL);
	p->pid = fork();
	REQUIRE(p->pid >= 0);
	if (!p->pid) {
		close(fd[0]);
		serve(fd[1], flags, cgroup);
	}
	close(fd[1]);
	p->fd = fd[0];
	p->next_id = 0; /* 0 is an ordinary id */
	p->notes = cJSON_CreateArray();
	frame_reader_init(&p->in);
}

void peer_forget(struct peer *p, unsigned keep)
{
	while (p->nstreams > keep)
		free(p->streams[--p->nstreams].text);
}

static void finish(struct peer *p)
{
	peer_forget(p, 0);
	cJSON_Delete(p->answer);
	cJSON_Delete(p->notes);
	frame_reader_finish(&p->in);
}

void peer_stop(struct peer *p)
{
	int status = -1;

	close(p->fd);
	REQUIRE(waitpid(p->pid, &status, 0) == p->pid);
	CHECK_EQ(status, 0);
	finish(p);
}

void peer_kill(struct peer *p)
{
	close(p->fd);
	kill(p->pid, SIGKILL);
	REQUIRE(waitpid(p->pid, NULL, 0) == p->pid);
	finish(p);
}

/* ---- sending ---- */

/* Gives credit back, between messages: not while one is being sent or taken apart. */
static void grant_all(struct peer *p)
{
	for (unsigned i = 0; i < p->nstreams && p->binary && !p->sending; i++) {
		struct peer_stream *s = &p->streams[i];
		uint64_t n = s->ungranted;

		if (s->stopped || s->ended || n < 65536)
			continue;
		s->ungranted = 0;
		s->window += n; /* before the agent can know */
		peer_note(p, "$skerry.credit",
			"{\"streamId\":%" PRIu64 ",\"bytes\":%" PRIu64 "}", s->id, n);
	}
}

static void send_all(struct peer *p, const void *data, size_t len)
{
	const uint8_t *d = data;
	ssize_t n;

	for (size_t done = 0; done < len && !p->closed; done += (size_t)n) {
		n = send(
			p->fd, d + done, p->bytewise ? 1 : len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			continue;
		REQUIRE(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET);
		if (errno != EAGAIN) {
			p->closed = true;
			return;
		}
		n = 0;
		peer_pump(p, 10);
	}
}

void peer_raw(struct peer *p, const void *data, size_t len)
{
	p->sending = true;
	send_all(p, data, len);
	p->sending = false;
	grant_all(p);
}

void peer_json(struct peer *p, const char *text)
{
	struct buf b;

	buf_init(&b, 0);
	REQUIRE(frame_put_json(&b, text, strlen(text)) == 0);
	peer_raw(p, buf_ptr(&b), buf_len(&b));
	buf_free(&b);
}

static printf_like(5, 0) void vsend(
	struct peer *p, const char *method, bool call, uint64_t id, const char *fmt, va_list ap)
{
	static char text[GP_FRAME_MAX + 1];
	int n = snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",", method);

	if (call)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "\"id\":%" PRIu64 ",", id);
	n += snprintf(text + n, sizeof(text) - (size_t)n, "\"params\":");
	n += vsnprintf(text + n, sizeof(text) - (size_t)n, fmt, ap);
	REQUIRE((size_t)n + 2 < sizeof(text));
	strcpy(text + n, "}");
	peer_json(p, text);
}

void peer_note(struct peer *p, const char *method, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsend(p, method, false, 0, fmt, ap);
	va_end(ap);
}

uint64_t peer_send_call(struct peer *p, const char *method, const char *fmt, ...)
{
	uint64_t id = p->next_id++;
	va_list ap;

	va_start(ap, fmt);
	vsend(p, method, true, id, fmt, ap);
	va_end(ap);
	return id;
}

void peer_data(struct peer *p, uint64_t stream, const void *data, size_t len)
{
	struct jwrite w;
	struct buf b;

	buf_init(&b, 0);
	if (p->binary) {
		REQUIRE(frame_put_data(&b, stream, data, len) == 0);
	} else {
		jwrite_begin(&w, &b);
		jwrite_fmt(&w,
			"{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.enqueue\","
			"\"params\":{\"streamId\":%" PRIu64 ",\"data\":",
			stream);
		jwrite_base64(&w, data, len);
		jwrite_raw(&w, "}}");
		REQUIRE(jwrite_end(&w) == 0);
	}
	peer_raw(p, buf_ptr(&b), buf_len(&b));
	buf_free(&b);
}

/* ---- receiving ---- */

struct peer_stream *peer_stream(struct peer *p, uint64_t id)
{
	struct peer_stream *s;

	for (unsigned i = 0; i < p->nstreams; i++)
		if (p->streams[i].id == id)
			return &p->streams[i];
	REQUIRE(p->nstreams < PEER_STREAMS);
	REQUIRE(id >= PEER_ID_BASE && id - PEER_ID_BASE < PEER_ID_COUNT);
	s = &p->streams[p->nstreams++];
	*s = (struct peer_stream){ .id = id, .hash = PEER_HASH, .window = GP_CREDIT_INITIAL };
	s->text = calloc(1, PEER_KEEP + 1);
	return s;
}

static void take_data(struct peer *p, uint64_t id, const void *data, size_t len)
{
	struct peer_stream *s = peer_stream(p, id);

	REQUIRE(s->started && !s->ended && !s->cancelled);
	REQUIRE(len > 0); /* protocol.md 6.2: never an empty enqueue */
	if (s->bytes < PEER_KEEP)
		memcpy(s->text + s->bytes, data, MIN(len, PEER_KEEP - s->bytes));
	s->bytes += len;
	s->hash = peer_hash(s->hash, data, len);
	if (!p->binary)
		return;
	REQUIRE(len <= s->window);
	s->window -= len;
	s->ungranted += len;
}

static void take_enqueue(struct peer *p, uint64_t id, const cJSON *params)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(params, "data"));
	size_t len = strlen(text);
	uint8_t *data = malloc(len + 1);

	REQUIRE(!p->binary);
	REQUIRE(base64_decode(text, len, data, &len));
	REQUIRE(len <= 65536);
	take_data(p, id, data, len);
	free(data);
}

static void take_note(struct peer *p, cJSON *msg)
{
	const char *method = cJSON_GetStringValue(cJSON_GetObjectItem(msg, "method"));
	const cJSON *params = cJSON_GetObjectItem(msg, "params");
	uint64_t id = (uint64_t)cJSON_GetNumberValue(cJSON_GetObjectItem(params, "streamId"));
	struct peer_stream *s;

	if (!strcmp(method, "$sandbox.stream.cancel") || !strcmp(method, "$skerry.credit")) {
		p->input_credit += (uint64_t)MAX(
			cJSON_GetNumberValue(cJSON_GetObjectItem(params, "bytes")), 0);
		cJSON_AddItemToArray(p->notes, msg);
		return;
	}
	s = peer_stream(p, id);
	REQUIRE(!s->ended && !s->cancelled); /* one end or error, nothing after a cancel */
	if (!strcmp(method, "$sandbox.stream.start")) {
		REQUIRE(!s->started);
		s->started = true;
	} else if (!strcmp(method, "$sandbox.stream.enqueue")) {
		take_enqueue(p, id, params);
	} else {
		s->failed = !strcmp(method, "$sandbox.stream.error");
		REQUIRE(s->started && (s->failed || !strcmp(method, "$sandbox.stream.end")));
		s->ended = true;
	}
	cJSON_Delete(msg);
}

static void take_message(struct peer *p, const struct frame *f)
{
	cJSON *msg = cJSON_ParseWithLength((const char *)f->data, f->len);
	const cJSON *id;

	REQUIRE(msg);
	CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(msg, "jsonrpc")), "2.0");
	if (cJSON_GetObjectItem(msg, "method")) {
		take_note(p, msg);
		return;
	}
	id = cJSON_GetObjectItem(msg, "id");
	REQUIRE(cJSON_IsNumber(id));
	if (p->answer_to != UINT64_MAX && (uint64_t)id->valuedouble == p->answer_to && !p->answer) {
		p->answer = msg;
		return;
	}
	/* The answer to a call that nobody waits for yet. */
	cJSON_AddItemToArray(p->notes, msg);
}

static void take_frames(struct peer *p)
{
	const char *why = "";
	struct frame f;
	int r;

	while ((r = frame_next(&p->in, &f, &why)) > 0) {
		if (f.kind == GP_JSON) {
			take_message(p, &f);
		} else if (f.kind == GP_DATA) {
			REQUIRE(p->binary);
			take_data(p, f.stream, f.data, f.len);
		} else {
			p->resets++;
			memcpy(p->nonce, f.data, GP_RESET_NONCE);
		}
	}
	if (r < 0)
		fprintf(stderr, "agent sent a bad frame: %s\n", why);
	REQUIRE(r == 0);
}

bool peer_pump(struct peer *p, int ms)
{
	struct pollfd pfd = { .fd = p->fd, .events = POLLIN };
	static uint8_t data[65536];
	ssize_t n;

	if (p->closed || poll(&pfd, 1, ms) <= 0)
		return false;
	n = recv(p->fd, data, p->bytewise ? 1 : sizeof(data), MSG_DONTWAIT);
	if (n <= 0) {
		REQUIRE(n == 0 || errno == ECONNRESET);
		p->closed = true;
		return false;
	}
	for (ssize_t i = 0; i < n; i += 4096) { /* a reader's limits are for single reads */
		REQUIRE(frame_reader_feed(&p->in, data + i, (size_t)MIN(n - i, 4096)) == 0);
		take_frames(p);
	}
	grant_all(p);
	return true;
}

static cJSON *find_answer(struct peer *p, uint64_t id)
{
	cJSON *n;

	cJSON_ArrayForEach(n, p->notes)
	{
		const cJSON *v = cJSON_GetObjectItem(n, "id");

		if (v && (uint64_t)v->valuedouble == id)
			return cJSON_DetachItemViaPointer(p->notes, n);
	}
	return NULL;
}

cJSON *peer_wait_answer(struct peer *p, uint64_t id)
{
	cJSON_Delete(p->answer);
	p->answer = find_answer(p, id);
	p->answer_to = id;
	while (!p->answer && peer_pump(p, PATIENCE_MS))
		;
	p->answer_to = UINT64_MAX;
	REQUIRE(p->answer);
	return p->answer;
}

cJSON *peer_call(struct peer *p, const char *method, const char *fmt, ...)
{
	uint64_t id = p->next_id++;
	cJSON *msg, *r, *v;
	va_list ap;

	va_start(ap, fmt);
	vsend(p, method, true, id, fmt, ap);
	va_end(ap);
	msg = peer_wait_answer(p, id);
	r = cJSON_GetObjectItem(msg, "result");
	if (!r)
		return cJSON_GetObjectItem(msg, "error");
	v = cJSON_GetObjectItem(r, "ok");
	return v ? v : cJSON_GetObjectItem(r, "error");
}

void peer_hello(struct peer *p, bool binary)
{
	cJSON *ok = peer_call(p, "$skerry.hello",
		"{\"version\":1,\"idBase\":%d,\"idCount\":%d,\"binary\":%s}", PEER_ID_BASE,
		PEER_ID_COUNT, binary ? "true" : "false");

	REQUIRE(cJSON_IsNumber(cJSON_GetObjectItem(ok, "version")));
	p->binary = binary;
}

/* ---- processes ---- */

static struct peer_stream *named(struct peer *p, const cJSON *ok, const char *name)
{
	const cJSON *id = cJSON_GetObjectItem(ok, name);

	REQUIRE(id); /* protocol.md 14.7: never absent */
	return cJSON_IsNull(id) ? NULL : peer_stream(p, (uint64_t)id->valuedouble);
}

struct peer_proc peer_spawn(struct peer *p, const char *fmt, ...)
{
	static char params[GP_FRAME_MAX];
	struct peer_proc r = { 0 };
	va_list ap;
	cJSON *ok;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	ok = peer_call(p, "$skerry.spawn", "{%s}", params);
	if (!cJSON_GetObjectItem(ok, "pid"))
		fprintf(stderr, "%s: %s\n", params, cJSON_PrintUnformatted(ok));
	REQUIRE(cJSON_IsNumber(cJSON_GetObjectItem(ok, "pid")));
	r.pid = (uint64_t)cJSON_GetObjectItem(ok, "pid")->valuedouble;
	r.out = named(p, ok, "stdoutStreamId");
	r.err = named(p, ok, "stderrStreamId");
	return r;
}

const char *peer_spawn_error(struct peer *p, const char *fmt, ...)
{
	static char params[GP_FRAME_MAX], code[64];
	const char *s;
	va_list ap;
	cJSON *e;

	va_start(ap, fmt);
	vsnprintf(params, sizeof(params), fmt, ap);
	va_end(ap);
	e = peer_call(p, "$skerry.spawn", "{%s}", params);
	CHECK(cJSON_IsString(cJSON_GetObjectItem(e, "constructorName")));
	CHECK(cJSON_IsString(cJSON_GetObjectItem(e, "message")));
	s = cJSON_GetStringValue(cJSON_GetObjectItem(e, "code"));
	snprintf(code, sizeof(code), "%s", s ? s : "(none)");
	return code;
}

void peer_until_end(struct peer *p, struct peer_stream *s)
{
	while (!s->ended)
		REQUIRE(peer_pump(p, PATIENCE_MS));
}

int peer_exit(struct peer *p, uint64_t pid, char *signal)
{
	cJSON *ok = peer_call(p, "processWait", "{\"pid\":%" PRIu64 "}", pid), *s;
	int code;

	REQUIRE(cJSON_IsNumber(cJSON_GetObjectItem(ok, "code")));
	code = cJSON_GetObjectItem(ok, "code")->valueint;
	CHECK(cJSON_IsBool(cJSON_GetObjectItem(ok, "success")));
	CHECK(!!cJSON_IsTrue(cJSON_GetObjectItem(ok, "success")) == !code);
	CHECK(cJSON_GetObjectItem(ok, "oom"));
	s = cJSON_GetObjectItem(ok, "signal");
	CHECK(s);
	if (signal)
		snprintf(signal, 16, "%s", cJSON_IsString(s) ? s->valuestring : "");
	return code;
}

int peer_run(struct peer *p, const char *script, struct peer_proc *ret)
{
	int code;

	*ret = peer_spawn(p, "\"command\":\"sh\",\"args\":[\"-c\",\"%s\"]", script);
	code = peer_exit(p, ret->pid, NULL);
	peer_until_end(p, ret->out);
	peer_until_end(p, ret->err);
	return code;
}

#if defined(__SANITIZE_ADDRESS__)
#define FREED_MEMORY_STAYS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FREED_MEMORY_STAYS 1
#endif
#endif

long peer_rss_kib(const struct peer *p)
{
#ifdef FREED_MEMORY_STAYS
	(void)p;
	return 0;
#endif
	char path[64], line[256];
	long kib = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)p->pid);
	f = fopen(path, "r");
	REQUIRE(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "VmRSS: %ld", &kib) == 1)
			break;
	fclose(f);
	return kib;
}
