#include "guest-init/errs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define E(code, class_name)                                                                        \
	{                                                                                          \
		code, #code, class_name                                                            \
	}

static const struct {
	int err;
	const char *name, *class_name;
} errs[] = {
	E(ENOENT, "NotFound"), E(ESRCH, "NotFound"), E(ECHILD, "NotFound"),
	E(EACCES, "PermissionDenied"), E(EPERM, "PermissionDenied"), E(EEXIST, "AlreadyExists"),
	E(EISDIR, "IsADirectory"), E(ENOTDIR, "NotADirectory"), E(ELOOP, "FilesystemLoop"),
	E(EBUSY, "Busy"), E(ETXTBSY, "Busy"), E(EBADF, "BadResource"), E(EPIPE, "BrokenPipe"),
	E(ECONNREFUSED, "ConnectionRefused"), E(ECONNRESET, "ConnectionReset"),
	E(ECONNABORTED, "ConnectionAborted"), E(ENOTCONN, "NotConnected"),
	E(EADDRINUSE, "AddrInUse"), E(EADDRNOTAVAIL, "AddrNotAvailable"),
	E(ENETUNREACH, "NetworkUnreachable"), E(EHOSTUNREACH, "NetworkUnreachable"),
	E(ETIMEDOUT, "TimedOut"), E(EINTR, "Interrupted"), E(EAGAIN, "WouldBlock"),
	E(ENOTSUP, "NotSupported"), E(ENOSYS, "NotSupported"), E(EILSEQ, "InvalidData"),
	E(EINVAL, "TypeError"), E(ENAMETOOLONG, "TypeError"), E(E2BIG, "Error"),
	E(ENOEXEC, "Error"), E(ENOTEMPTY, "Error"), E(EXDEV, "Error"), E(ENOSPC, "Error"),
	E(EDQUOT, "Error"), E(EROFS, "Error"), E(EMFILE, "Error"), E(ENFILE, "Error"),
	E(EFBIG, "Error"), E(ENOMEM, "Error"), E(ENOBUFS, "Error"), E(ENOTTY, "Error"),
	E(ENXIO, "Error"), E(ENODEV, "Error"), E(ELIBBAD, "Error"),
	E(EIO, "Error"), /* last: stands for what is not listed */
};

static size_t find(int err)
{
	size_t i = 0;

	while (i + 1 < ARRAY_SIZE(errs) && errs[i].err != err)
		i++;
	return i;
}

const char *errs_name(int err)
{
	return errs[find(err)].name;
}

const char *errs_class(int err)
{
	return errs[find(err)].class_name;
}

void errs_write(struct jwrite *w, const char *class_name, const char *code, const char *message)
{
	jwrite_raw(w, "{\"constructorName\":");
	jwrite_text(w, class_name);
	jwrite_raw(w, ",\"message\":");
	jwrite_text(w, message);
	jwrite_raw(w, ",\"code\":");
	if (code)
		jwrite_text(w, code);
	else
		jwrite_raw(w, "null");
	jwrite_raw(w, ",\"name\":");
	jwrite_text(w, class_name);
	jwrite_raw(w, ",\"stack\":null,\"cause\":null,\"errors\":null,\"error\":null,"
		      "\"suppressed\":null}");
}

void errs_write_errno(struct jwrite *w, int err, const char *what)
{
	char message[512];

	snprintf(message, sizeof(message), "%s (os error %d): %s", strerror(err), err, what);
	errs_write(w, errs_class(err), errs_name(err), message);
}
