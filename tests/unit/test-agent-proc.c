/*
 * guest-init: processes of the real agent: start, environment, exit, signals, terminals.
 * protocol.md 7.5
 */
#include <signal.h>
#include <sys/stat.h>

#include "tests/lib/agent_peer.h"
#include "tests/lib/test.h"

static struct peer p;

static void output_and_status(void)
{
	struct peer_proc x;

	CHECK_EQ(peer_run(&p, "echo out; echo err >&2; exit 42", &x), 42);
	CHECK_STR(x.out->text, "out\n");
	CHECK_STR(x.err->text, "err\n");
	CHECK_EQ(peer_run(&p, "true", &x), 0);
	CHECK_EQ(x.out->bytes, 0);
}

/* Killed by signal n: 128 + n and its name. */
static void killed_by_signal(void)
{
	static const struct {
		const char *name;
		int number;
	} cases[] = { { "SIGTERM", 15 }, { "SIGKILL", 9 }, { "SIGHUP", 1 }, { "SIGUSR1", 10 } };
	char signal[16];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct peer_proc x = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"100\"]");
		cJSON *ok = peer_call(&p, "processKill", "{\"pid\":%" PRIu64 ",\"signal\":\"%s\"}",
			x.pid, cases[i].name);

		CHECK(cJSON_IsNull(ok));
		CHECK_EQ(peer_exit(&p, x.pid, signal), 128 + cases[i].number);
		CHECK_STR(signal, cases[i].name);
	}
}

/*
 * The default is SIGTERM; a process that is gone has an error of its own (5.3); names are checked.
 */
static void kill_answers(void)
{
	struct peer_proc x = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"100\"]");
	char signal[16];
	cJSON *e;

	e = peer_call(&p, "processKill", "{\"pid\":%" PRIu64 ",\"signal\":\"SIGNOPE\"}", x.pid);
	CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(e, "constructorName")), "TypeError");
	CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(e, "code")), "EINVAL");
	peer_call(&p, "processKill", "{\"pid\":%" PRIu64 ",\"signal\":null}", x.pid);
	CHECK_EQ(peer_exit(&p, x.pid, signal), 143);
	for (int i = 0; i < 2; i++) {
		e = peer_call(&p, "processKill", "{\"pid\":%" PRIu64 "}", i ? x.pid : 1);
		CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(e, "constructorName")),
			"TypeError");
		CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(e, "code")), "ENOENT");
		CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(e, "message")),
			"Child process has already terminated");
	}
	/* A status is kept, and may be asked for again. */
	CHECK_EQ(peer_exit(&p, x.pid, signal), 143);
	e = peer_call(&p, "processWait", "{\"pid\":1}");
	CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(e, "code")), "ENOENT");
}

/*
 * processWait is a long poll that holds nothing up; several may wait, the process group can be
 * signalled.
 */
static void waits_and_groups(void)
{
	struct peer_proc x = peer_spawn(&p,
		"\"command\":\"sh\",\"args\":[\"-c\",\"(trap '' INT; echo ready; exec sleep 100) & "
		"exec sleep 100\"]");
	uint64_t a = peer_send_call(&p, "processWait", "{\"pid\":%" PRIu64 "}", x.pid);
	uint64_t b = peer_send_call(&p, "processWait", "{\"pid\":%" PRIu64 "}", x.pid);
	struct peer_proc y;
	cJSON *ok;

	CHECK_EQ(peer_run(&p, "echo meanwhile", &y), 0);
	while (!x.out->bytes)
		REQUIRE(peer_pump(&p, 10000));
	/*
	 * Again and again: the shell may swallow the first on its way to the exec. An error says that it
	 * has ended, and that the answers came while the call waited for its own.
	 */
	ok = peer_call(&p, "$skerry.kill",
		"{\"pid\":%" PRIu64 ",\"signal\":\"SIGINT\",\"group\":true}", x.pid);
	CHECK(cJSON_IsNull(ok));
	while (cJSON_IsNull(ok) && !peer_pump(&p, 200))
		ok = peer_call(&p, "$skerry.kill",
			"{\"pid\":%" PRIu64 ",\"signal\":\"SIGINT\",\"group\":true}", x.pid);
	for (int i = 0; i < 2; i++) {
		ok = cJSON_GetObjectItem(peer_wait_answer(&p, i ? a : b), "result");
		ok = cJSON_GetObjectItem(ok, "ok");
		CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(ok, "signal")), "SIGINT");
	}
	/* What ignores the signal goes on, and holds the pipe open. */
	CHECK(!x.out->ended);
	kill(-(pid_t)x.pid, SIGKILL);
	peer_until_end(&p, x.out);
}

static void environment(void)
{
	struct peer_proc x;

	x = peer_spawn(&p, "\"command\":\"env\",\"env\":{\"A\":\"1 \\u00e9\\ud83d\\ude00\\ud800\","
			   "\"PATH\":\"/usr/bin:/bin\",\"N\":null}");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK(strstr(x.out->text, "A=1 \xc3\xa9\xf0\x9f\x98\x80\xef\xbf\xbd\n"));
	CHECK(strstr(x.out->text, "PATH=/usr/bin:/bin\n"));
	CHECK(!strstr(x.out->text, "PATH=/usr/local"));
	CHECK(strstr(x.out->text, "HOME=/"));
	CHECK(!strstr(x.out->text, "N="));
	x = peer_spawn(&p, "\"command\":\"/usr/bin/env\",\"clearEnv\":true,\"env\":{\"B\":\"2\"}");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "B=2\n");
	/* The command is looked up in the PATH that it gets. */
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"env\",\"env\":{\"PATH\":\"/nowhere\"}"),
		"ENOENT");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"env\",\"env\":{\"A=B\":\"\"}"), "EINVAL");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"env\",\"env\":{\"A\":\"x\\u0000y\"}"),
		"EINVAL");
}

static void spawn_errors(void)
{
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"no-such-command\""), "ENOENT");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"\""), "ENOENT");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"/nowhere/x\""), "ENOENT");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"/etc/passwd\""), "EACCES");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"/\""), "EACCES");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"true\",\"cwd\":\"/nowhere\""), "ENOENT");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"true\",\"cwd\":\"/etc/passwd\""), "ENOTDIR");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"true\",\"user\":\"no-such-user\""), "EINVAL");
	CHECK_STR(
		peer_spawn_error(&p, "\"command\":\"true\",\"group\":\"no-such-group\""), "EINVAL");
}

/*
 * A script without "#!" runs in a shell, as with execvp(3); a working directory is entered first.
 */
static void scripts_and_folders(void)
{
	char dir[] = "/tmp/agent-test-XXXXXX", path[64];
	struct peer_proc x;
	FILE *f;

	REQUIRE(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/script", dir);
	f = fopen(path, "w");
	REQUIRE(f);
	fputs("echo script $1; pwd\n", f);
	fclose(f);
	REQUIRE(chmod(path, 0755) == 0);
	x = peer_spawn(&p, "\"command\":\"./script\",\"args\":[\"arg\"],\"cwd\":\"%s\"", dir);
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	snprintf(path, sizeof(path), "script arg\n%s\n", dir);
	CHECK_STR(x.out->text, path);
	snprintf(path, sizeof(path), "%s/script", dir);
	unlink(path);
	rmdir(dir);
}

/* Each in a session of its own, no signal blocked or ignored, no descriptor inherited. */
static void clean_process(void)
{
	struct peer_proc x;

	CHECK_EQ(
		peer_run(&p,
			"ls /proc/self/fd | tr '\\\\n' ' '; grep -E '^Sig(Blk|Ign)' /proc/self/status; "
			"ps -o sid= -p $$ | tr -d ' '; echo $$",
			&x),
		0);
	CHECK(strstr(x.out->text, "0 1 2 3 ")); /* 3 is the folder that ls reads */
	CHECK(!strstr(x.out->text, "3 4"));
	CHECK(strstr(x.out->text, "SigBlk:\t0000000000000000\n"));
	CHECK(strstr(x.out->text, "SigIgn:\t0000000000000000\n"));
	{
		char want[64];

		snprintf(want, sizeof(want), "%" PRIu64 "\n%" PRIu64 "\n", x.pid, x.pid);
		CHECK(strstr(x.out->text, want));
	}
}

static void users(void)
{
	struct peer_proc x;

	if (geteuid())
		return; /* only root becomes somebody else; the guest's agent is */
	x = peer_spawn(&p,
		"\"command\":\"sh\",\"args\":[\"-c\",\"id -u; id -g; id -G; echo $HOME $USER\"],"
		"\"user\":\"nobody\",\"group\":\"daemon\"");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "65534\n1\n1 65534\n/nonexistent nobody\n");
	x = peer_spawn(&p, "\"command\":\"id\",\"args\":[\"-u\"],\"user\":12345");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "12345\n");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"/root/x\",\"user\":\"nobody\""), "EACCES");
}

/* A controlling terminal with a size that changes; ^C and ^D typed into it. */
static void terminal(void)
{
	struct peer_proc x;
	char signal[16];

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":0}");
	x = peer_spawn(&p,
		"\"command\":\"sh\",\"args\":[\"-c\",\"tty >/dev/null && stty size; read a; stty size; "
		"echo got $a; exec sleep 100\"],\"pty\":{\"rows\":24,\"cols\":80},\"stdinStreamId\":0");
	CHECK(x.out && !x.err);
	while (!strstr(x.out->text, "24 80\r\n"))
		REQUIRE(peer_pump(&p, 10000));
	CHECK(cJSON_IsNull(peer_call(
		&p, "$skerry.resize", "{\"pid\":%" PRIu64 ",\"rows\":50,\"cols\":132}", x.pid)));
	peer_data(&p, 0, "line\r", 5);
	while (!strstr(x.out->text, "got line\r\n"))
		REQUIRE(peer_pump(&p, 10000));
	CHECK(strstr(x.out->text, "50 132\r\n"));
	do { /* again and again, as above */
		peer_data(&p, 0, "\003", 1);
	} while (!x.out->ended && (peer_pump(&p, 200), !x.out->ended));
	CHECK_EQ(peer_exit(&p, x.pid, signal), 130);
	peer_until_end(&p, x.out);
	CHECK_STR(cJSON_GetStringValue(cJSON_GetObjectItem(
			  peer_call(&p, "$skerry.resize",
				  "{\"pid\":%" PRIu64 ",\"rows\":1,\"cols\":1}", x.pid),
			  "code")),
		"ESRCH");
	/* The end of input is the end-of-file character, also after an unfinished line. */
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":1}");
	x = peer_spawn(
		&p, "\"command\":\"cat\",\"pty\":{\"rows\":24,\"cols\":80},\"stdinStreamId\":1");
	peer_data(&p, 1, "half", 4);
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":1}");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK(strstr(x.out->text, "halfhalf"));
}

/* The output's end is that of the pipe, which a child may hold longer than the process lives. */
static void background_child(void)
{
	struct peer_proc x = peer_spawn(
		&p, "\"command\":\"sh\",\"args\":[\"-c\",\"(sleep 0.3; echo late) & echo early\"]");

	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	CHECK(!x.out->ended);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "early\nlate\n");
}

static void many_at_once(void)
{
	enum { N = 200 };
	static struct peer_proc x[N];
	char want[16];

	for (int i = 0; i < N; i++)
		x[i] = peer_spawn(&p, "\"command\":\"sh\",\"args\":[\"-c\",\"echo %d; exit %d\"]",
			i, i % 120);
	for (int i = N - 1; i >= 0; i--) {
		CHECK_EQ(peer_exit(&p, x[i].pid, NULL), i % 120);
		peer_until_end(&p, x[i].out);
		snprintf(want, sizeof(want), "%d\n", i);
		CHECK_STR(x[i].out->text, want);
	}
}

/* The end of the connection ends what it started. */
static void ends_with_connection(void)
{
	struct peer_proc x = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"1000\"]");
	char path[64];

	peer_stop(&p);
	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/stat", x.pid);
	for (int i = 0; i < 100 && !access(path, F_OK); i++) {
		char state[256] = "";
		FILE *f = fopen(path, "r"); /* a zombie, where nobody reaps orphans */

		if (f && fgets(state, sizeof(state), f) && strstr(state, ") Z ")) {
			fclose(f);
			return;
		}
		if (f)
			fclose(f);
		usleep(50000);
	}
	CHECK(access(path, F_OK));
}

int main(void)
{
	peer_start(&p, GUEST_CONN_LAST, NULL);
	peer_hello(&p, true);
	output_and_status();
	killed_by_signal();
	kill_answers();
	waits_and_groups();
	environment();
	spawn_errors();
	scripts_and_folders();
	clean_process();
	users();
	terminal();
	background_child();
	many_at_once();
	ends_with_connection();
	TEST_END();
}
