"""Says what a task can reach of every other process: by /proc, ptrace and system calls."""

import contextlib
import ctypes
import os
from pathlib import Path

PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SEIZE = 16, 17, 0x4206
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
EFAULT = 14

libc = ctypes.CDLL(None, use_errno=True)


class Piece(ctypes.Structure):
    """An iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def try_process(process: Path) -> None:
    """Prints each way in that is open."""
    number = int(process.name)

    def tell(what: str) -> None:
        print(f"{what} of {number} ({(process / 'comm').read_text().strip()})", flush=True)

    for name in ("mem", "environ", "maps", "auxv", "syscall", "fd/0", "fd/1", "fd/9"):
        with contextlib.suppress(OSError), (process / name).open("rb"):
            tell(name)
    with contextlib.suppress(OSError):
        list((process / "fd").iterdir())
        tell("fd")
    with contextlib.suppress(OSError), (process / "oom_score_adj").open("w"):
        tell("oom_score_adj")
    buffer = ctypes.create_string_buffer(8)
    # Nothing lies at that address: EFAULT comes after the permission.
    here, there = Piece(ctypes.addressof(buffer), 8), Piece(0, 8)
    libc.process_vm_readv(number, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if ctypes.get_errno() == EFAULT:
        tell("process_vm_readv")
    for name, request in (("ptrace seize", PTRACE_SEIZE), ("ptrace attach", PTRACE_ATTACH)):
        if libc.ptrace(request, number, None, None) == 0:
            tell(name)
            libc.ptrace(PTRACE_DETACH, number, None, None)
    descriptor = libc.syscall(SYS_PIDFD_OPEN, number, 0)
    if descriptor >= 0 and libc.syscall(SYS_PIDFD_GETFD, descriptor, 0, 0) >= 0:
        tell("pidfd_getfd")


own = set()
above = os.getpid()
# The shell of this command is above this process; its session is above that, and has another group.
while above and os.getpgid(above) == os.getpgrp():
    own.add(above)
    above = int(Path(f"/proc/{above}/stat").read_text().rpartition(")")[2].split()[1])
for entry in Path("/proc").iterdir():
    if entry.name.isdigit() and int(entry.name) not in own:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            try_process(entry)
