/*
 * api/cli/setup.c - skerry setup: make the kernels and the image that sandboxes start from
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/cli/command.h"
#include "api/emu/accel.h"
#include "api/emu/emu_dirs.h"
#include "api/store/format.h"
#include "api/store/kernels.h"
#include "api/store/setup_image.h"
#include "api/store/setup_kernel.h"
#include "base/log.h"

struct setup_config {
	struct table_list kernels, images;
	bool emulated, force, quiet, needs;
	const char *mirror;
};

#define AT(member) offsetof(struct setup_config, member)

static const struct table_field setup_fields[] = {
	{ "kernel", 0, TABLE_LIST, AT(kernels), "NAME",
		.help = "Make this kernel, debian-13 or debian-12; may be repeated" },
	{ "image", 0, TABLE_LIST, AT(images), "NAME", .help = "Make this image: debian-13" },
	{ "emulated", 0, TABLE_FLAG, AT(emulated), .help = "Make the kernel of the emulated host" },
	{ "force", 0, TABLE_FLAG, AT(force), .help = "Make again what is there" },
	{ "mirror", 0, TABLE_STRING, AT(mirror), "URL", .min = 1,
		.help = "Fetch packages from this Debian mirror" },
	{ "quiet", 'q', TABLE_FLAG, AT(quiet), .help = "Say nothing but errors" },
	{ "needs", 0, TABLE_FLAG, AT(needs), .hidden = true,
		.help = "Print where machines would run here: kvm or emulated" },
};

static bool is_listed(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(name, *list))
			return true;
	return false;
}

static int check_names(
	const char *what, const struct table_list *names, const char *const *known, struct error *e)
{
	for (size_t i = 0; i < names->n; i++) {
		const char *near = table_nearest(names->items[i], known);

		if (is_listed(names->items[i], known))
			continue;
		return error_set(e, EINVAL, "--%s '%s': can't be made; %s%s%s", what,
			names->items[i],
			near ? "did you mean '" : "there is: ", near ? near : known[0],
			near ? "'?" : "");
	}
	return 0;
}

/* A /dev/kvm that may not be opened is no reason to emulate: `skerry run` will say how to open it. */
static bool needs_emulation(void)
{
	autoclose int dir = emu_runtime_open(NULL);
	struct accel_report rep;

	return !accel_report("/dev/kvm", dir, &rep, NULL) && rep.kvm != ACCEL_KVM_USABLE;
}

/* What is to be there in the end. */
struct wanted {
	const char *const *kernels, *const *images; /* NULL-terminated */
	const char *host;                           /* the emulated host's kernel, or NULL */
};

/* What the user names and no more; nothing named: all that a first run needs. */
static struct wanted decide(const struct setup_config *c)
{
	static const char *const kernels[] = { KERNEL_DEFAULT, NULL };
	static const char *const none[] = { NULL };
	bool named = c->kernels.n || c->images.n;
	struct wanted w = { c->kernels.n ? c->kernels.items : none,
		c->images.n ? c->images.items : none, NULL };

	if (!named && !c->emulated) {
		w.kernels = kernels;
		w.images = setup_image_names;
	}
	if (c->emulated || (!named && needs_emulation()))
		w.host = KERNEL_EMULATED;
	return w;
}

static bool all_ready(int state, const struct wanted *w)
{
	bool ready = !w->host || setup_kernel_ready(state, w->host);

	for (const char *const *k = w->kernels; *k; k++)
		ready = ready && setup_kernel_ready(state, *k);
	for (const char *const *i = w->images; *i; i++)
		ready = ready && setup_image_ready(state, *i);
	return ready;
}

static int make_kernel(struct setup *s, const char *name, struct error *e)
{
	return !s->force && setup_kernel_ready(s->state, name) ? 0 : setup_kernel(s, name, e);
}

static int make_all(struct setup *s, const struct wanted *w, struct error *e)
{
	int r = w->host ? make_kernel(s, w->host, e) : 0;

	for (const char *const *k = w->kernels; !r && *k; k++)
		r = make_kernel(s, *k, e);
	for (const char *const *i = w->images; !r && *i; i++)
		if (s->force || !setup_image_ready(s->state, *i))
			r = setup_image(s, *i, e);
	return r;
}

static int set_up(
	const struct setup_config *c, const struct wanted *w, int *ret_signal, struct error *e)
{
	struct setup s = { .mirror = c->mirror, .force = c->force };
	int r = setup_open(&s, c->quiet, e);

	if (!r)
		r = make_all(&s, w, e);
	*ret_signal = s.host.caught;
	setup_close(&s);
	return r;
}

static int setup_command(
	const struct cli *cli, void *config, unused_arg struct table_list *operands)
{
	const struct setup_config *c = config;
	struct error e = { 0 };
	struct wanted w;
	autoclose int state = -1;
	int r, caught = 0;

	if (c->needs) {
		puts(needs_emulation() ? "emulated" : "kvm");
		return CLI_OK;
	}
	if (check_names("kernel", &c->kernels, setup_kernel_names, &e) ||
		check_names("image", &c->images, setup_image_names, &e)) {
		cli_error(&e);
		return CLI_USAGE;
	}
	w = decide(c);
	state = format_open_state(true, &e);
	r = state < 0 ? state : 0;
	if (!r && (c->force || !all_ready(state, &w)))
		r = set_up(c, &w, &caught, &e);
	if (caught) {
		log_error("setup: stopped; run it again to go on");
		return CLI_SIGNAL + caught;
	}
	if (r) {
		cli_error(&e);
		return CLI_FAILED;
	}
	if (!c->quiet && *w.images && *w.kernels)
		log_info("setup: done; try: %s run -- uname -a", cli->argv[0]);
	return CLI_OK;
}

static const struct table setup_table = {
	.name = "skerry setup",
	.summary = "Make the kernel and the image that sandboxes start from",
	.text = "Without --kernel, --image and --emulated: kernel and image debian-13 and, where\n"
		"KVM can't be used, the kernel of the emulated host; else only what is named.\n"
		"Packages come from Debian by mmdebstrap, also through the proxy that http_proxy\n"
		"names. What is there already is skipped; what was interrupted is begun anew.\n"
		"Needs no root where user namespaces work.",
	TABLE_FIELDS(setup_fields),
	.size = sizeof(struct setup_config),
};

const struct command cmd_setup = {
	.name = "setup",
	.table = &setup_table,
	.run = setup_command,
};
