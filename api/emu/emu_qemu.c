#include "api/emu/emu_qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <x86intrin.h>

#include "base/file.h"

#define ARGS_MAX 192
#define TEXT_MAX 16384
#define ICOUNT_TSC_KHZ                                                                             \
	1000000 /* -icount shift=1: 2 ns an instruction, the TSC counts nanoseconds */
/* Features of the model that TCG warns about, one line each, before L1 says anything. */
#define NOT_IN_TCG                                                                                    \
	",rdseed=off,sha-ni=off,fxsr-opt=off,misalignsse=off,3dnowprefetch=off,osvw=off,topoext=off," \
	"nrip-save=off,xsavec=off"
#define CONSOLE_PIPE (64 * 1024)

/* ---- what it is given ---- */

void emu_tsc_begin(struct emu_tsc *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	t->tsc = __rdtsc();
	t->ns = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t emu_tsc_end(const struct emu_tsc *t)
{
	struct timespec pause = { .tv_nsec = (long)NSEC_PER_MSEC };
	struct emu_tsc now;

	for (;;) {
		emu_tsc_begin(&now);
		if (now.ns - t->ns >= EMU_TSC_MIN_NS)
			break;
		nanosleep(&pause, NULL);
	}
	return (uint64_t)((unsigned __int128)(now.tsc - t->tsc) * 1000000 / (now.ns - t->ns));
}

/* The number after @name in a file of "Name: 123 kB" lines, or of the file itself if @name is NULL. */
static bool read_number(const char *path, const char *name, uint64_t *ret)
{
	char *text = NULL;
	const char *p;
	size_t len;
	bool ok = false;

	if (file_read(AT_FDCWD, path, 65536, &text, &len, NULL))
		return false;
	p = name ? strstr(text, name) : text;
	if (p)
		ok = sscanf(p + (name ? strlen(name) : 0), "%" SCNu64, ret) == 1;
	free(text);
	return ok;
}

int emu_memory(uint64_t *ret, struct error *e)
{
	uint64_t avail, limit, used, size;

	if (!read_number("/proc/meminfo", "MemAvailable:", &avail))
		return error_set(e, EIO, "/proc/meminfo: can't read MemAvailable");
	avail *= 1024;
	/* In a container its cgroup is the root that can be seen. "max" is no number. */
	if (read_number("/sys/fs/cgroup/memory.max", NULL, &limit) &&
		read_number("/sys/fs/cgroup/memory.current", NULL, &used))
		avail = MIN(avail, limit - MIN(limit, used));
	size = ALIGN_DOWN(MIN(avail / 4 * 3, EMU_MEMORY_MAX), MIB);
	if (size < EMU_MEMORY_MIN)
		return error_set(e, ENOMEM,
			"the emulated host needs %" PRIu64 " MiB of memory; only %" PRIu64
			" MiB are available here",
			EMU_MEMORY_MIN / MIB * 4 / 3, avail / MIB);
	*ret = size;
	return 0;
}

/* ---- its command line ---- */

struct args {
	char *argv[ARGS_MAX + 1];
	size_t n;
	char text[TEXT_MAX];
	size_t used;
	bool full;
};

static void add(struct args *a, const char *fmt, ...) printf_like(2, 3);

static void add(struct args *a, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(a->text + a->used, sizeof(a->text) - a->used, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(a->text) - a->used || a->n == ARGS_MAX) {
		a->full = true;
		return;
	}
	a->argv[a->n++] = a->text + a->used;
	a->used += (size_t)n + 1;
}

/* Blank-separated words, none of which has a blank. */
static void add_words(struct args *a, const char *words)
{
	while (*words) {
		size_t n = strcspn(words, " ");

		add(a, "%.*s", (int)n, words);
		words += n + strspn(words + n, " ");
	}
}

/* Descriptors that QEMU inherits, under their own numbers; the daemon's table has them close-on-exec. */
struct inherited {
	int console, initrd, disk, ctl;
	int port[EMU_PORTS];
};

static void add_devices(struct args *a, const struct inherited *in)
{
	static const char *const tags[] = { EMU_TAG_ROOT, EMU_TAG_STORE };

	for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
		add(a, "-fsdev");
		add(a, "local,id=fs%zu,path=/,security_model=none,readonly=on,multidevs=remap", i);
		add(a, "-device");
		add(a, "virtio-9p-pci,fsdev=fs%zu,mount_tag=%s", i, tags[i]);
	}
	if (in->disk >= 0) {
		add(a, "-drive");
		add(a,
			"if=none,id=d0,file=/dev/fd/%d,format=raw,cache=writeback,discard=unmap,"
			"detect-zeroes=unmap",
			in->disk);
		add(a, "-device");
		add(a, "virtio-blk-pci,drive=d0,discard=on,write-zeroes=on");
	}
	add(a, "-device");
	add(a, "virtio-serial-pci,id=vs0,max_ports=%d", EMU_PORT_AGENT + EMU_PORTS);
	add(a, "-chardev");
	add(a, "socket,id=ctl,fd=%d", in->ctl);
	add(a, "-device");
	add(a, "virtserialport,bus=vs0.0,nr=%d,chardev=ctl", EMU_PORT_CTL);
	for (int i = 0; i < EMU_PORTS; i++) {
		add(a, "-chardev");
		add(a, "socket,id=p%d,fd=%d", i, in->port[i]);
		add(a, "-device");
		add(a, "virtserialport,bus=vs0.0,nr=%d,chardev=p%d", EMU_PORT_AGENT + i, i);
	}
}

static void add_all(struct args *a, const struct emu_config *c, const struct inherited *in,
	uint64_t memory, uint64_t tsc_khz)
{
	add(a, "%s", c->qemu);
	add_words(a,
		"-name skerry-emulated-host -nodefaults -no-user-config -display none -no-reboot -net none "
		"-M q35,usb=off,smbus=off,sata=off,vmport=off -accel tcg,thread=single,tb-size=1024 "
		"-cpu EPYC" NOT_IN_TCG " -smp 1 "
		"-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "
		"-serial chardev:con");
	if (c->icount)
		add_words(a, "-icount shift=1");
	add(a, "-chardev");
	add(a, "file,id=con,path=/dev/fd/%d", in->console);
	add(a, "-m");
	add(a, "%" PRIu64, memory / MIB);
	add_devices(a, in);
	add(a, "-kernel");
	add(a, "%s", c->kernel);
	add(a, "-initrd");
	add(a, "/dev/fd/%d", in->initrd);
	add(a, "-append");
	add(a,
		"console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check "
		"nowatchdog lsm=landlock cryptomgr.notests random.trust_cpu=on audit=0 tsc_early_khz=%" PRIu64
		" skerry.mode=emu",
		c->icount ? (uint64_t)ICOUNT_TSC_KHZ : tsc_khz);
}

/* ---- its start and end ---- */

static void keep_open(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFD, 0);
}

static void child_exec(struct args *a, const struct inherited *in, pid_t parent)
{
	char *env[] = { NULL };
	sigset_t none;
	int null = open("/dev/null", O_RDWR);

	/* The parent may have died before the request was in force. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(127);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(null, 0);
	dup2(in->console, 1);
	dup2(in->console, 2);
	keep_open(in->console);
	keep_open(in->initrd);
	keep_open(in->disk);
	keep_open(in->ctl);
	for (int i = 0; i < EMU_PORTS; i++)
		keep_open(in->port[i]);
	execve(a->argv[0], a->argv, env);
	dprintf(2, "%s: %s\n", a->argv[0], strerror(errno));
	_exit(127);
}

static int stream_pair(int *ours, int *theirs)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return -errno;
	*ours = sv[0];
	*theirs = sv[1];
	return 0;
}

static int make_ends(struct emu_qemu *q, struct inherited *in)
{
	int p[2], r;

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	q->console = p[0];
	in->console = p[1];
	if (fcntl(p[0], F_SETPIPE_SZ, CONSOLE_PIPE) < 0)
		return -errno;
	r = stream_pair(&q->ctl, &in->ctl);
	for (int i = 0; !r && i < EMU_PORTS; i++)
		r = stream_pair(&q->port[i], &in->port[i]);
	return r;
}

static void inherited_close(struct inherited *in)
{
	close_fd(&in->console);
	close_fd(&in->initrd);
	close_fd(&in->ctl);
	for (int i = 0; i < EMU_PORTS; i++)
		close_fd(&in->port[i]);
}

static int spawn(struct emu_qemu *q, struct args *a, const struct inherited *in, struct error *e)
{
	pid_t parent = getpid();

	q->pid = fork();
	if (q->pid < 0)
		return error_set(e, errno, "%s: fork: %s", a->argv[0], strerror(errno));
	if (!q->pid)
		child_exec(a, in, parent);
	q->pidfd = (int)syscall(SYS_pidfd_open, q->pid, 0);
	if (q->pidfd < 0)
		return error_set(e, errno, "pidfd_open: %s", strerror(errno));
	return 0;
}

int emu_qemu_start(struct emu_qemu *ret, const struct emu_config *c, int disk, uint64_t tsc_khz,
	struct error *e)
{
	struct emu_qemu q = { .pid = -1, .pidfd = -1, .console = -1, .ctl = -1 };
	struct inherited in = { .console = -1, .disk = disk, .ctl = -1 };
	struct args *a = calloc(1, sizeof(*a));
	int r;

	for (int i = 0; i < EMU_PORTS; i++)
		q.port[i] = in.port[i] = -1;
	in.initrd = a ? emu_initrd(c, e) : error_set(e, ENOMEM, "emulated host: out of memory");
	r = MIN(in.initrd, 0);
	if (!r)
		r = emu_memory(&q.memory, e);
	if (!r) {
		r = make_ends(&q, &in);
		if (r)
			error_set(e, -r, "emulated host: pipes and sockets: %s", strerror(-r));
	}
	if (!r) {
		add_all(a, c, &in, q.memory, tsc_khz);
		r = a->full ? error_set(e, E2BIG, "emulated host: QEMU's command line is too long")
			    : spawn(&q, a, &in, e);
	}
	inherited_close(&in);
	free(a);
	if (r)
		emu_qemu_end(&q);
	else
		*ret = q;
	return r;
}

void emu_qemu_end(struct emu_qemu *q)
{
	if (q->pid > 0) {
		kill(q->pid, SIGKILL);
		while (waitpid(q->pid, NULL, 0) < 0 && errno == EINTR)
			;
		q->pid = -1;
	}
	close_fd(&q->pidfd);
	close_fd(&q->console);
	close_fd(&q->ctl);
	for (int i = 0; i < EMU_PORTS; i++)
		close_fd(&q->port[i]);
}
