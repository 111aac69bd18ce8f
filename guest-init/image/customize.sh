# Turns freshly installed packages into the image: run by mmdebstrap outside the root that it gets as $1.
set -eu
root=$1

# The user of every sandbox, and the folder that deployments go to.
chroot "$root" useradd --create-home --uid 1000 --user-group --shell /bin/bash app
printf 'app ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/app"
chmod 0440 "$root/etc/sudoers.d/app"
chroot "$root" install -d -o app -g app -m 0755 /app

# What ends the machine from inside. PID 1 understands these signals as systemd does; options are of no account.
power() {
	printf '#!/bin/sh\nkill -%s 1\n' "$2" >"$root/usr/sbin/$1"
	chmod 0755 "$root/usr/sbin/$1"
}
power poweroff 38
power halt 38
power reboot 39

# Nothing of the machine that it was made on, nothing that two sandboxes must not share.
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/etc/.pwd.lock"
: >"$root/etc/machine-id"
printf 'skerry\n' >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
printf '# Name servers are set when the sandbox has a network.\n' >"$root/etc/resolv.conf"
printf '# The root file system is mounted before anything reads this.\n' >"$root/etc/fstab"

# Caches and logs.
rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/aux-cache \
	"$root"/var/lib/dpkg/*-old "$root"/var/log/apt "$root"/var/log/dpkg.log "$root"/var/log/bootstrap.log \
	"$root"/var/log/alternatives.log
