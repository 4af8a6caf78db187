"""Makes system calls that a sandbox does not have, and prints for each whether the kernel refused it."""

import ctypes
import errno
import platform
import struct
import subprocess
import sys
from pathlib import Path

AF_INET, AF_ALG, AF_VSOCK, AF_NFC, AF_PACKET = 2, 38, 40, 39, 17
SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET = 1, 2, 5
CLONE_NEWUSER, SIGCHLD = 0x10000000, 17
# The kernel reads 32 bits of a socket's family, a filter all 64.
UPPER = 1 << 32
ARM = platform.machine() == "aarch64"
# Numbers up to 400 differ between machines; later ones do not.
NUMBERS = {
    "socket": (41, 198), "socketpair": (53, 199), "clone": (56, 220), "unshare": (272, 97),
    "keyctl": (250, 219), "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "kcmp": (312, 272), "personality": (135, 92),
}  # fmt: skip
LATER = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "clone3": 435,
    "pidfd_getfd": 438,
}
CALLS = [
    ("AF_VSOCK", "socket", AF_VSOCK, SOCK_STREAM, 0),
    ("AF_VSOCK with upper bits", "socket", AF_VSOCK | UPPER, SOCK_STREAM, 0),
    ("AF_ALG", "socket", AF_ALG, SOCK_SEQPACKET, 0),
    ("AF_ALG with upper bits", "socket", AF_ALG | UPPER, SOCK_SEQPACKET, 0),
    ("AF_NFC", "socket", AF_NFC, SOCK_SEQPACKET, 0),
    ("AF_PACKET", "socket", AF_PACKET, SOCK_DGRAM, 0),
    ("a pair of AF_VSOCK", "socketpair", AF_VSOCK, SOCK_STREAM, 0, 0),
    ("io_uring_setup", "io_uring_setup", 8, 0),
    ("io_uring_enter", "io_uring_enter", 0, 0, 0, 0, 0),
    ("io_uring_register", "io_uring_register", 0, 0, 0, 0),
    ("clone3", "clone3", 0, 0),
    ("a namespace by clone", "clone", CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    ("a namespace by unshare", "unshare", CLONE_NEWUSER),
    ("keyctl", "keyctl", 0, 0),
    ("bpf", "bpf", 0, 0, 0),
    ("userfaultfd", "userfaultfd", 0),
    ("perf_event_open", "perf_event_open", 0, 0, -1, -1, 0),
    ("kcmp", "kcmp", 1, 1, 0, 0, 0),
    ("pidfd_getfd", "pidfd_getfd", 0, 0, 0),
    ("a personality without randomization", "personality", 0x0040000),
]
libc = ctypes.CDLL(None, use_errno=True)
for what, name, *arguments in CALLS:
    number = LATER.get(name) or NUMBERS[name][ARM]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    refused = result < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)
    print(f"{what}: {'refused' if refused else f'{result}, error {ctypes.get_errno()}'}")

if platform.machine() == "x86_64":
    # A program for 32-bit machines, byte by byte: exit(7) by `int 0x80`.
    code = bytes.fromhex("b801000000bb07000000cd80")
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    segment = struct.pack("<IIIIIIII", 1, 0, 0x8048000, 0x8048000, 84 + len(code), 84 + len(code), 5, 0x1000)
    program = Path(sys.argv[1])
    program.write_bytes(head + segment + code)
    program.chmod(0o755)
    ended = subprocess.run([program], check=False).returncode
    print(f"a 32-bit program: {'refused' if ended < 0 else f'ran and ended with {ended}'}")
