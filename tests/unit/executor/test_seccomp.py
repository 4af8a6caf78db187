"""The seccomp profile of sandboxes: what it must never allow, and in which form it must say it."""

from __future__ import annotations

import json
from typing import Any

from chorus.executor.docker.container import SECCOMP

PROFILE: dict[str, Any] = json.loads(SECCOMP)
# Open to a process without capabilities in no current default profile of Docker, or closed here on purpose.
NEVER = [
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_mempolicy",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "socketcall",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "vhangup",
    "vm86",
    "vm86old",
]


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for rule in PROFILE["syscalls"] if name in rule["names"]]


def test_what_is_not_named_is_refused() -> None:
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not [name for name in NEVER if rules(name)]
    # `clone3` is named to be answered with ENOSYS, after which the C library uses `clone`.
    assert [(rule["action"], rule["errnoRet"]) for rule in rules("clone3")] == [("SCMP_ACT_ERRNO", 38)]


def test_sockets_are_listed_by_family() -> None:
    """By equality, one argument a rule.

    "Not this one" lets pass what has more bits, which the kernel does not look at, and of two conditions for
    one argument either is enough.
    """
    for name, families in (("socket", {1, 2, 10, 16}), ("socketpair", {1})):
        arguments = [rule["args"] for rule in rules(name)]
        assert all(len(one) == 1 and one[0]["op"] == "SCMP_CMP_EQ" for one in arguments)
        assert {one[0]["value"] for one in arguments} == families
        assert all(one[0]["index"] == 0 for one in arguments)


def test_no_machine_has_programs_of_another_kind() -> None:
    assert all(entry["subArchitectures"] == [] for entry in PROFILE["archMap"])


def test_a_call_is_in_one_place() -> None:
    """A rule without conditions would make those of the others worthless."""
    seen: dict[str, bool] = {}
    for rule in PROFILE["syscalls"]:
        for name in rule["names"]:
            assert name not in seen or (seen[name] and "args" in rule), name
            seen[name] = "args" in rule
