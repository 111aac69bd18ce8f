#!/usr/bin/env python3
"""Which folder may include which: the seams of the architecture (README, "Where things live").

base <- vmm, proxy, guest-init, net, api; net may include vmm/netdev.h; guest-init only the libc-only part of
base; api includes all and is included by none.
"""
import pathlib
import re
import sys

ALLOWED = {
    "base": {"base"},
    "vmm": {"base", "vmm"},
    "net": {"base", "net", "vmm/netdev.h"},
    "proxy": {"base", "proxy"},
    "guest-init": {
        "guest-init",
        "base/util.h",
        "base/buf.h",
        "base/frame.h",
        "base/guest_proto.h",
        "base/emu_names.h",
    },
    "api": {"api", "base", "vmm", "net", "proxy", "guest-init/guest_blob.h"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def main(root):
    bad = checked = 0
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*.[chS]")):
            checked += 1
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match[1]
                if target in allowed or target.split("/")[0] in allowed:
                    continue
                print(f"{path.relative_to(root)}:{number}: {folder}/ may not include {target}")
                bad += 1
    if not checked:
        print(f"{root}: no sources found")
        bad = 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
