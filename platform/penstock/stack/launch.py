"""A child's last step before its program: it dies with its parent, and is an ordinary user where it must.

Run as a script: `python -I -S launch.py PARENT_PID DEATH_SIGNAL USER|- PROGRAM [ARG]...`. It is a process
and not a `preexec_fn`, because code between fork and exec may deadlock in a parent that has threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import struct
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522
# Enough to walk through a parent folder that is closed to others (a checkout under a home); the first that
# root itself holds is kept. Containers usually grant only the second.
CAP_DAC_READ_SEARCH = 2
CAP_DAC_OVERRIDE = 1

_libc = ctypes.CDLL(None, use_errno=True)


def become(user: str) -> None:
    """Change from root to this user, and keep the right to walk through closed folders if root has it."""
    entry = pwd.getpwnam(user)
    kept = next((cap for cap in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if _permitted() >> cap & 1), None)
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    mask = 0 if kept is None else 1 << kept
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    _libc.capset(header, struct.pack("6I", mask, mask, mask, 0, 0, 0))
    if kept is not None:
        _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept, 0, 0)


def _permitted() -> int:
    with open("/proc/self/status") as status:
        return next((int(line.split()[1], 16) for line in status if line.startswith("CapPrm:")), 0)


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, change user, and become the program."""
    parent, death_signal, user, *command = arguments
    if user != "-":
        become(user)
    # After the change of user: the kernel forgets the signal when credentials change.
    _libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
