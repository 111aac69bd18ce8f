/*
 * guest-init: every limit of the agent is reached and holds. In this process, with connections that
 * have no descriptor and a way to the system that starts nothing, so that thousands cost little.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "guest-init/agent_int.h"
#include "tests/lib/test.h"

#define FIRST_PID 1000000000 /* no kernel gives such */

static struct guest_agent *a;
static pid_t next_pid = FIRST_PID;
static int kills;

static int fake_spawn(unused_arg struct spawn *s, pid_t *ret)
{
	*ret = next_pid++;
	return 0;
}

static int fake_kill(unused_arg pid_t pid, unused_arg int sig)
{
	kills++;
	return 0;
}

static void send_text(struct conn *c, const char *text)
{
	struct buf b;

	buf_init(&b, 0);
	REQUIRE(frame_put_json(&b, text, strlen(text)) == 0);
	conn_input(c, buf_ptr(&b), buf_len(&b));
	buf_free(&b);
}

/* Whether what is queued to be sent holds @text; the queue is empty afterwards. */
static bool said(struct conn *c, const char *text)
{
	bool found =
		buf_len(&c->out) && memmem(buf_ptr(&c->out), buf_len(&c->out), text, strlen(text));

	buf_consume(&c->out, buf_len(&c->out));
	conn_flush(c);
	return found;
}

static struct conn *new_conn(void)
{
	struct conn *c;

	REQUIRE(conn_create(a, -1, 0, false) == 0);
	c = list_entry(a->conns.prev, struct conn, node);
	send_text(c, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"$skerry.hello\",\"params\":"
		     "{\"version\":1,\"idBase\":0,\"idCount\":1000000,\"binary\":true}}");
	CHECK(said(c, "\"agent\""));
	return c;
}

static void start(void)
{
	struct guest_config config = { .log_fd = -1 };

	REQUIRE(guest_agent_create(&a, &config) == 0);
	a->sys.spawn = fake_spawn;
	a->sys.kill = fake_kill;
}

static const char spawn_null[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"spawn\",\"params\":"
				 "{\"command\":\"x\",\"stdout\":\"null\",\"stderr\":\"null\"}}";
static const char spawn_piped[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"spawn\",\"params\":"
				  "{\"command\":\"x\"}}";

/* GUEST_PROCS_MAX over all connections; a place that becomes free can be used again. */
static void processes(void)
{
	struct conn *c, *d;

	start();
	c = new_conn();
	d = new_conn();
	for (int i = 0; i < GUEST_PROCS_MAX; i++) {
		send_text(i % 2 ? c : d, spawn_null);
		CHECK(said(i % 2 ? c : d, "\"ok\""));
	}
	send_text(c, spawn_null);
	CHECK(said(c, "\"code\":\"EAGAIN\""));
	proc_exited(a, FIRST_PID, 0);
	send_text(d, spawn_null);
	CHECK(said(d, "\"ok\""));
	send_text(d, spawn_null);
	CHECK(said(d, "\"code\":\"EAGAIN\""));
	kills = 0;
	conn_destroy(c);
	CHECK_EQ(kills, GUEST_PROCS_MAX / 2);
	CHECK_EQ(a->nprocs, GUEST_PROCS_MAX / 2);
	guest_agent_destroy(a);
}

/* GUEST_CONNS_MAX connections; one more is closed. */
static void connections(void)
{
	int fd[2], r = 0, n = 0;

	start();
	while (!r && n < 2 * GUEST_CONNS_MAX) {
		REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
		r = guest_agent_add_conn(a, fd[1], 0);
		if (r) {
			char byte;

			CHECK_EQ(read(fd[0], &byte, 1), 0);
		}
		n += !r;
		close(fd[0]);
	}
	CHECK_EQ(r, -EMFILE);
	CHECK_EQ(n, GUEST_CONNS_MAX);
	REQUIRE(agent_turn(a, 0) == 0); /* all of them were closed by the host meanwhile */
	REQUIRE(agent_turn(a, 0) == 0);
	CHECK_EQ(a->nconns, 0);
	guest_agent_destroy(a);
}

/* GUEST_UNCLAIMED streams of a connection, GUEST_STREAMS_MAX in all. */
static void streams(void)
{
	struct conn *c = NULL;
	char text[128];

	start();
	for (int k = 0; k < GUEST_STREAMS_MAX / GUEST_UNCLAIMED; k++) {
		c = new_conn();
		for (int i = 0; i < GUEST_UNCLAIMED; i++) {
			snprintf(text, sizeof(text),
				"{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.start\",\"params\":"
				"{\"streamId\":%d}}",
				i);
			send_text(c, text);
		}
		CHECK(!said(c, "cancel"));
	}
	CHECK_EQ(a->nstreams, GUEST_STREAMS_MAX);
	send_text(c, spawn_piped);
	CHECK(said(c, "\"code\":\"EMFILE\""));
	c = new_conn();
	send_text(c, text);
	CHECK(said(c, "$sandbox.stream.cancel"));
	CHECK_EQ(a->nstreams, GUEST_STREAMS_MAX);
	guest_agent_destroy(a);
}

/* No descriptors left: an error for the request, nothing is lost or left behind. */
static void descriptors(void)
{
	struct rlimit few, before;
	struct conn *c;

	start();
	c = new_conn();
	send_text(c, spawn_piped);
	CHECK(said(c, "\"ok\""));
	REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
	few = before;
	few.rlim_cur = 3;
	REQUIRE(setrlimit(RLIMIT_NOFILE, &few) == 0);
	for (int i = 0; i < 100; i++) {
		send_text(c, spawn_piped);
		CHECK(said(c, "\"code\":\"EMFILE\""));
	}
	REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
	CHECK_EQ(a->nprocs, 1);
	CHECK_EQ(a->nstreams, 2);
	send_text(c, spawn_piped);
	CHECK(said(c, "\"ok\""));
	guest_agent_destroy(a);
}

/* A pid that the kernel gives out again means the new process. */
static void pid_again(void)
{
	struct conn *c;

	start();
	c = new_conn();
	next_pid = FIRST_PID;
	send_text(c, spawn_null);
	proc_exited(a, FIRST_PID, 5 << 8);
	next_pid = FIRST_PID;
	send_text(c, spawn_null);
	CHECK(said(c, "\"ok\""));
	CHECK_EQ(c->nexited, 0);
	proc_exited(a, FIRST_PID, 7 << 8);
	send_text(c,
		"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"processWait\",\"params\":{\"pid\":1000000000}}");
	CHECK(said(c, "\"code\":7"));
	guest_agent_destroy(a);
}

/* A host that takes nothing: the queue stays bounded, at its limit the connection ends. */
static void queue(void)
{
	struct conn *c;
	int n = 0;

	start();
	c = new_conn();
	while (!conn_failed(c) && n++ < 1000000)
		send_text(c, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"abort\",\"params\":{}}");
	CHECK(conn_failed(c));
	CHECK(buf_len(&c->out) <= OUT_MAX);
	REQUIRE(agent_turn(a, 0) == 0);
	CHECK_EQ(a->nconns, 0);
	guest_agent_destroy(a);
}

int main(void)
{
	processes();
	connections();
	streams();
	descriptors();
	pid_again();
	queue();
	TEST_END();
}
