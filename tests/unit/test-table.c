/* base/table: parsing, ranges, help and messages of an option table. */
#include "base/table.h"

#include "tests/lib/test.h"

struct config {
	bool quiet, interactive;
	uint64_t cpus, memory, timeout;
	const char *dir, *trace;
	struct table_list env;
	int accel;
};

static const char *const accels[] = { "auto", "kvm", "emulated", NULL };

static const struct table_field fields[] = {
	{ "quiet", 'q', TABLE_FLAG, offsetof(struct config, quiet), .help = "Say nothing" },
	{ "interactive", 'i', TABLE_FLAG, offsetof(struct config, interactive), .help = "Stdin" },
	{ "env", 'e', TABLE_LIST, offsetof(struct config, env), "K=V", .help = "Set a variable" },
	{ "workdir", 'w', TABLE_STRING, offsetof(struct config, dir), "DIR", .min = 1,
		.help = "Start there" },
	{ "cpus", 0, TABLE_INT, offsetof(struct config, cpus), "N", "2", .min = 1, .max = 32,
		.help = "CPUs" },
	{ "memory", 'm', TABLE_SIZE, offsetof(struct config, memory), "SIZE", "2g", .min = 32 * MIB,
		.max = 64 * GIB, .help = "Memory" },
	{ "timeout", 0, TABLE_DURATION, offsetof(struct config, timeout), "TIME",
		.help = "Give up after this long, which is a rather long explanation that has to "
			"be wrapped" },
	{ "boot-trace", 0, TABLE_STRING, offsetof(struct config, trace), "json", .implicit = "text",
		.help = "Trace" },
	{ "accel", 0, TABLE_ENUM, offsetof(struct config, accel), "HOW", "auto", .choices = accels,
		.help = "Where" },
};

static const struct table table = {
	.name = "skerry test",
	.operands = "[--] CMD [ARG...]",
	.summary = "Test",
	TABLE_FIELDS(fields),
	.size = sizeof(struct config),
	.min_operands = 1,
	.max_operands = SIZE_MAX,
	.operands_end_options = true,
};

static struct config config;
static struct table_list operands;
static struct error error;

static int parse_table(const struct table *t, const char *const *argv)
{
	int argc = 0;

	table_free(t, &config);
	table_list_free(&operands);
	while (argv[argc])
		argc++;
	table_defaults(t, &config);
	error.msg[0] = '\0';
	return table_parse(t, &config, argc, (char *const *)(uintptr_t)argv, &operands, &error);
}

#define PARSE(...) parse_table(&table, (const char *const[]){ __VA_ARGS__, NULL })

static void test_forms(void)
{
	CHECK_EQ(PARSE("ls", "-i", "--quiet"), TABLE_OK);
	CHECK_EQ(operands.n, 3); /* what follows the command is the command's */
	CHECK(!config.interactive && !config.quiet);
	CHECK_EQ(config.cpus, 2);
	CHECK_EQ(config.memory, 2 * GIB);

	CHECK_EQ(PARSE("-iq", "-eA=1", "-e", "B=2", "--env=C=3", "--env", "D=", "--", "-x"),
		TABLE_OK);
	CHECK(config.interactive && config.quiet);
	REQUIRE(config.env.n == 4 && operands.n == 1);
	CHECK_STR(config.env.items[0], "A=1");
	CHECK_STR(config.env.items[1], "B=2");
	CHECK_STR(config.env.items[2], "C=3");
	CHECK_STR(config.env.items[3], "D=");
	CHECK_STR(operands.items[0], "-x");

	CHECK_EQ(PARSE("-qm512m", "-w", "/tmp", "--timeout", "90s", "--accel=emulated", "ls", "--"),
		TABLE_OK);
	CHECK_EQ(config.memory, 512 * MIB);
	CHECK_STR(config.dir, "/tmp");
	CHECK_EQ(config.timeout, 90 * NSEC_PER_SEC);
	CHECK_EQ(config.accel, 2);
	REQUIRE(operands.n == 2);
	CHECK_STR(operands.items[1], "--"); /* the second -- is an argument */

	CHECK_EQ(PARSE("--boot-trace", "ls"), TABLE_OK);
	CHECK_STR(config.trace, "text");
	CHECK_EQ(operands.n, 1);
	CHECK_EQ(PARSE("--boot-trace=json", "-"), TABLE_OK);
	CHECK_STR(config.trace, "json");
	CHECK_STR(operands.items[0], "-");
	CHECK_EQ(PARSE("--help"), TABLE_HELP);
	CHECK_EQ(PARSE("-qh", "--nonsense"), TABLE_HELP);
	CHECK_EQ(PARSE("ls", "--help"), TABLE_OK);
}

static void test_messages(void)
{
	static const struct {
		const char *argv[4];
		const char *message;
	} bad[] = {
		{ { "--memroy", "1g", "ls" }, "no option --memroy; did you mean --memory?" },
		{ { "--xyzzy", "ls" }, "no option --xyzzy; 'skerry test --help' lists them" },
		{ { "-Z", "ls" }, "no option -Z; 'skerry test --help' lists them" },
		{ { "--quiet=yes", "ls" }, "--quiet: takes no value" },
		{ { "--memory" }, "--memory: needs a value: --memory SIZE" },
		{ { "-m" }, "--memory: needs a value: --memory SIZE" },
		{ { "-m", "16m", "ls" }, "--memory '16m': must be from 32 MiB to 64 GiB" },
		{ { "-m", "65g", "ls" }, "--memory '65g': must be from 32 MiB to 64 GiB" },
		{ { "-m", "18446744073709551616", "ls" },
			"--memory '18446744073709551616': must be from 32 MiB to 64 GiB" },
		{ { "-m", "2x", "ls" }, "--memory '2x': not a size such as 512m or 2g" },
		{ { "-m", "-1", "ls" }, "--memory '-1': not a size such as 512m or 2g" },
		{ { "-m", "", "ls" }, "--memory '': not a size such as 512m or 2g" },
		{ { "--cpus", "0", "ls" }, "--cpus '0': must be from 1 to 32" },
		{ { "--cpus", "2.5", "ls" }, "--cpus '2.5': not a whole number" },
		{ { "--cpus= 2", "ls" }, "--cpus ' 2': not a whole number" },
		{ { "--timeout", "5x", "ls" }, "--timeout '5x': not a time such as 30s or 5m" },
		{ { "--accel", "foo", "ls" }, "--accel 'foo': must be one of auto, kvm, emulated" },
		{ { "-w", "", "ls" }, "--workdir: must not be empty" },
		{ { "-i" }, "too few arguments; usage: skerry test [OPTION...] [--] CMD [ARG...]" },
		{ { "--\033[31m", "ls" },
			"no option --\\x1b[31m; 'skerry test --help' lists them" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_EQ(parse_table(&table, bad[i].argv), -EINVAL);
		CHECK_STR(error.msg, bad[i].message);
	}
}

static void test_required(void)
{
	static const struct table_field need[] = {
		{ "dir", 'd', TABLE_STRING, offsetof(struct config, dir), "DIR", .required = true,
			.help = "Needed" },
	};
	static const struct table t = {
		.name = "t", .summary = "T", TABLE_FIELDS(need), .size = sizeof(struct config)
	};

	CHECK_EQ(parse_table(&t, (const char *const[]){ NULL }), -EINVAL);
	CHECK_STR(error.msg, "--dir DIR is needed; see 't --help'");
	CHECK_EQ(parse_table(&t, (const char *const[]){ "-d", "x", NULL }), TABLE_OK);
	CHECK_EQ(parse_table(&t, (const char *const[]){ "-dx", "y", NULL }), -EINVAL);
	CHECK_STR(error.msg, "argument 'y' is one too many; usage: t [OPTION...]");
}

static void test_units(void)
{
	static const struct {
		const char *text;
		int r;
		uint64_t v;
	} sizes[] = { { "0", 0, 0 }, { "1", 0, 1 }, { "4K", 0, 4096 }, { "2GiB", 0, 2 * GIB },
		{ "3mb", 0, 3 * MIB }, { "16777215t", 0, UINT64_C(16777215) << 40 },
		{ "16777216t", -ERANGE, 0 }, { "99999999999999999999", -ERANGE, 0 },
		{ "1gg", -EINVAL, 0 }, { "k", -EINVAL, 0 }, { " 1", -EINVAL, 0 },
		{ "1.5g", -EINVAL, 0 }, { "0x10", -EINVAL, 0 } },
	  times[] = { { "30", 0, 30 * NSEC_PER_SEC }, { "250ms", 0, 250 * NSEC_PER_MSEC },
		  { "5m", 0, 300 * NSEC_PER_SEC }, { "2h", 0, 7200 * NSEC_PER_SEC },
		  { "99999999999h", -ERANGE, 0 }, { "5d", -EINVAL, 0 }, { "s", -EINVAL, 0 } };
	char buf[32];
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		v = 0;
		CHECK_EQ(table_size(sizes[i].text, &v), sizes[i].r);
		CHECK_EQ(v, sizes[i].v);
	}
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		v = 0;
		CHECK_EQ(table_duration(times[i].text, &v), times[i].r);
		CHECK_EQ(times[i].r ? 0 : v, times[i].v);
	}
	CHECK_STR(table_format_size(buf, sizeof(buf), 2 * GIB), "2 GiB");
	CHECK_STR(table_format_size(buf, sizeof(buf), 1536 * MIB), "1536 MiB");
	CHECK_STR(table_format_size(buf, sizeof(buf), 4097), "4097 bytes");
	CHECK_STR(table_format_size(buf, sizeof(buf), 0), "0 bytes");
}

static void test_nearest(void)
{
	static const char *const names[] = { "run", "setup", "version", "help", "kernel", NULL };

	CHECK_STR(table_nearest("rnu", names), "run");
	CHECK_STR(table_nearest("vers", names), "version");
	CHECK_STR(table_nearest("sutep", names), "setup");
	CHECK(!table_nearest("docker", names));
	CHECK(!table_nearest("", names));
	CHECK(!table_nearest("x", names));
	CHECK(!table_nearest("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", names));
}

static void test_help(void)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	REQUIRE(f);
	table_help(&table, f);
	REQUIRE(!fclose(f));
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		CHECK(strstr(text, fields[i].name));
	CHECK(strstr(text, "Usage: skerry test [OPTION...] [--] CMD [ARG...]\n\nTest.\n"));
	CHECK(strstr(text, "Memory (default 2g)"));
	CHECK(strstr(text, "--boot-trace[=json]"));
	for (char *line = text, *nl; (nl = strchr(line, '\n')); line = nl + 1)
		CHECK(nl - line <= 80);
	free(text);
}

int main(void)
{
	test_forms();
	test_messages();
	test_required();
	test_units();
	test_nearest();
	test_help();
	table_free(&table, &config);
	table_list_free(&operands);
	TEST_END();
}
