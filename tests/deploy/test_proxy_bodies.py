"""Which containers, sessions and limits the filtering proxy lets an agent ask for: those of a sandbox alone.

Each attempt at another is refused, named in the log, and never reaches the daemon.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chorus.executor.docker.container import SECCOMP

from .conftest import docker
from .sandbox_bodies import sandbox, with_host, with_text
from .watched import Watched

pytestmark = pytest.mark.deploy

CREATE = "/v1.41/containers/create"

# ---- containers ------------------------------------------------------------------------------------

# Settings that a container may have and no sandbox has, by the walls that they would take away.
HOST_SETTINGS: dict[str, Any] = {
    # Mounts and volumes.
    "Binds": ["/:/host"],
    "Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}],
    "VolumesFrom": ["x"],
    "VolumeDriver": "local",
    "StorageOpt": {"size": "1T"},
    "ContainerIDFile": "/etc/cron.d/x",
    # Devices.
    "Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}],
    "DeviceRequests": [{"Driver": "nvidia", "Count": -1}],
    "DeviceCgroupRules": ["b *:* rwm"],
    # Namespaces.
    "PidMode": "host",
    "UTSMode": "host",
    "UsernsMode": "host",
    "CgroupnsMode": "host",
    "Cgroup": "container:x",
    # Rights.
    "CapAdd": ["SYS_ADMIN"],
    "Capabilities": ["CAP_SYS_ADMIN"],
    "GroupAdd": ["0"],
    "Runtime": "x",
    "CgroupParent": "/x",
    "Annotations": {"io.kubernetes.cri-o.userns-mode": "host"},
    "MaskedPaths": [],
    "ReadonlyPaths": [],
    "OomScoreAdj": -1000,
    "OomKillDisable": True,
    "Isolation": "hyperv",
    # The network.
    "PortBindings": {"80/tcp": [{"HostPort": "80"}]},
    "PublishAllPorts": True,
    "Links": ["x:y"],
    "DnsOptions": ["ndots:0"],
    # Shares of the host.
    "BlkioWeight": 1000,
    "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}],
    "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 1}],
    "KernelMemory": 1,
    "KernelMemoryTCP": 1,
    "MemoryReservation": 1,
    "MemorySwappiness": 1,
    "NanoCpus": 1,
    "CpuShares": 1,
    "CpuRealtimePeriod": 1,
    "CpuRealtimeRuntime": 1,
    "CpusetCpus": "0",
    "CpusetMems": "0",
    "IOMaximumBandwidth": 1,
    "AutoRemove": True,
    "ConsoleSize": [1, 1],
}
SETTINGS: dict[str, Any] = {
    "Volumes": {"/x": {}},
    "NetworkingConfig": {"EndpointsConfig": {"host": {}}},
    "NetworkDisabled": False,
    "MacAddress": "02:42:ac:11:00:02",
    "ExposedPorts": {"80/tcp": {}},
    "Domainname": "x",
    "Platform": "linux/arm64",
    "StopSignal": "SIGKILL",
    "StopTimeout": 1,
    "Shell": ["/bin/sh"],
    "OnBuild": ["x"],
    "ArgsEscaped": True,
    "StdinOnce": True,
}


@pytest.mark.parametrize("name", HOST_SETTINGS)
@pytest.mark.parametrize("empty", [False, True])
def test_settings_of_a_host_that_no_sandbox_has(watched: Watched, name: str, empty: bool) -> None:
    body = with_host(**{name: None if empty else HOST_SETTINGS[name]})
    watched.refuses(lambda: watched.ask("POST", CREATE, body), f"HostConfig.{name} may not be set", CREATE)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_no_sandbox_has(watched: Watched, name: str) -> None:
    body = {**sandbox(), name: SETTINGS[name]}
    watched.refuses(lambda: watched.ask("POST", CREATE, body), f"{name} may not be set", CREATE)


def profile(text: str) -> list[str]:
    return ["no-new-privileges", f"seccomp={text}"]


# Settings that sandboxes have, with the values that would take their walls away.
BAD_VALUES: list[tuple[str, Any]] = [
    ("Privileged", True),
    ("CapDrop", ["NET_RAW"]),
    ("CapDrop", []),
    ("CapDrop", ["all"]),
    ("NetworkMode", "host"),
    ("NetworkMode", "bridge"),
    ("NetworkMode", "container:x"),
    ("NetworkMode", "default"),
    ("IpcMode", "host"),
    ("IpcMode", "shareable"),
    ("IpcMode", "container:x"),
    ("Sysctls", {"net.ipv4.ip_forward": "1"}),
    ("Sysctls", {"kernel.msgmax": "1"}),
    ("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"]),
    ("SecurityOpt", ["no-new-privileges"]),
    ("SecurityOpt", [f"seccomp={SECCOMP}"]),
    ("SecurityOpt", ["no-new-privileges:false", f"seccomp={SECCOMP}"]),
    ("SecurityOpt", profile(SECCOMP.replace('"accept",', '"accept","mount",'))),
    ("SecurityOpt", profile('{"defaultAction":"SCMP_ACT_ALLOW"}')),
    ("SecurityOpt", profile(SECCOMP + " ")),
    ("SecurityOpt", [*profile(SECCOMP), "seccomp=unconfined"]),
    ("SecurityOpt", ["seccomp=unconfined", *profile(SECCOMP)]),
    ("SecurityOpt", [*profile(SECCOMP), "apparmor=unconfined"]),
    ("SecurityOpt", [*profile(SECCOMP), "label=disable"]),
    ("SecurityOpt", [*profile(SECCOMP), "systempaths=unconfined"]),
    ("SecurityOpt", ["no-new-privileges", 1]),
    ("Init", True),
    ("ReadonlyRootfs", False),
    ("RestartPolicy", {"Name": "always"}),
    ("LogConfig", {"Type": "syslog", "Config": {}}),
    ("LogConfig", {"Type": "none", "Config": {"a": "b"}}),
    ("Ulimits", [{"Name": "memlock", "Soft": -1, "Hard": -1}]),
    ("Ulimits", []),
    ("PidsLimit", 0),
    ("PidsLimit", -1),
    ("Memory", 0),
    ("MemorySwap", -1),
    ("CpuQuota", 0),
    ("ShmSize", 0),
]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=lambda value: value if type(value) is str else "")
def test_values_that_no_sandbox_has(watched: Watched, name: str, value: Any) -> None:
    body = with_host(**{name: value})
    watched.refuses(lambda: watched.ask("POST", CREATE, body), f"HostConfig.{name} has a value", CREATE)


@pytest.mark.parametrize("folder", ["/workspace", "/tmp"])
@pytest.mark.parametrize(
    "options",
    [
        "rw",
        "rw,exec,suid,dev",
        "rw,exec,nosuid,nodev,size=1,nr_inodes=1,mode=1777,dev",
        # Without limit.
        "rw,exec,nosuid,nodev,size=0,nr_inodes=1,mode=1777",
        "rw,exec,nosuid,nodev,size=1,nr_inodes=0,mode=1777",
    ],
)
def test_temporary_file_systems_that_no_sandbox_has(watched: Watched, folder: str, options: str) -> None:
    body = sandbox()
    body["HostConfig"]["Tmpfs"][folder] = options
    watched.refuses(lambda: watched.ask("POST", CREATE, body), f"HostConfig.Tmpfs.{folder} has a value")
    body = with_host(Tmpfs={**sandbox()["HostConfig"]["Tmpfs"], "/etc": options})
    watched.refuses(lambda: watched.ask("POST", CREATE, body), "HostConfig.Tmpfs./etc may not be set")


# Settings of which an agent may say what it likes, within their types.
FREE = {"Image", "Entrypoint", "Cmd", "Env", "Labels"}
AMOUNTS = {"CpuPeriod", "CpuQuota", "Memory", "MemorySwap", "PidsLimit", "ShmSize"}


def settings_of(value: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Where each setting stands."""
    for name, inner in value.items():
        yield (*above, name)
        if isinstance(inner, dict) and name in {"HostConfig", "Tmpfs", "Labels"}:
            yield from settings_of(inner, *above, name)


@pytest.mark.parametrize("place", list(settings_of(sandbox())), ids=".".join)
def test_each_setting_is_there_with_its_value(watched: Watched, place: tuple[str, ...]) -> None:
    where = ".".join(place)
    without, other, null = sandbox(), sandbox(), sandbox()
    objects = [without, other, null]
    for name in place[:-1]:
        objects = [found[name] for found in objects]
    last = place[-1]
    del objects[0][last]
    objects[1][last] = -1 if last in AMOUNTS else {"x": 1} if isinstance(objects[1][last], dict) else 7
    objects[2][last] = None
    watched.refuses(lambda: watched.ask("POST", CREATE, without), f"{where} must be set")
    watched.refuses(lambda: watched.ask("POST", CREATE, other), where)
    watched.refuses(lambda: watched.ask("POST", CREATE, null), f"{where} has a value")


# ---- bodies that two parsers may read differently --------------------------------------------------

ASCII = "not plain ASCII"
ONE = "not one JSON document"
TWICE = "stands in it twice"
UNUSUAL = "an unusual escape or number"
UNKNOWN = "may not be set"


def hidden_host() -> dict[str, Any]:
    """The walls stand in an object that the daemon does not look at."""
    config = sandbox()
    config["Healthcheck"]["HostConfig"] = config.pop("HostConfig")
    return config


def quoted_host() -> dict[str, Any]:
    """The walls stand in a string."""
    config = sandbox()
    config["Env"].append(json.dumps({"HostConfig": config.pop("HostConfig")}))
    return config


WHOLE = json.dumps(sandbox()).encode()
PRIVILEGED = '"Privileged": false'
BODIES: dict[str, tuple[Any, str]] = {
    "a name twice": (with_text(PRIVILEGED, f'{PRIVILEGED}, "Privileged": true'), TWICE),
    "a name twice with one value": (with_text(PRIVILEGED, f"{PRIVILEGED}, {PRIVILEGED}"), TWICE),
    "a second HostConfig": (WHOLE[:-1] + b', "HostConfig": {"Privileged": true}}', TWICE),
    "a HostConfig of nothing at the end": (WHOLE[:-1] + b', "HostConfig": null}', TWICE),
    "labels twice": (with_text('"Labels": {', '"Labels": {}, "Labels": {'), TWICE),
    "another profile after it": (
        with_text(PRIVILEGED, f'"SecurityOpt": {json.dumps(profile("{}"))}, {PRIVILEGED}'),
        TWICE,
    ),
    "hostconfig": (WHOLE[:-1] + b', "hostconfig": {"Privileged": true}}', f"hostconfig {UNKNOWN}"),
    "HOSTCONFIG": (WHOLE[:-1] + b', "HOSTCONFIG": {}}', f"HOSTCONFIG {UNKNOWN}"),
    "another case within": (
        with_text(PRIVILEGED, f'{PRIVILEGED}, "privileged": true'),
        "HostConfig.privileged",
    ),
    # U+017F folds to s and U+212A to k, which Go's decoder takes for the same names.
    "a long s": (with_text('"HostConfig"', '"Ho\u017ftConfig"'), ASCII),
    "a long s, escaped": (with_text('"HostConfig"', '"Ho\\u017ftConfig"'), UNUSUAL),
    "a long s besides": (with_text(PRIVILEGED, f'{PRIVILEGED}, "Bind\\u017f": ["/:/host"]'), UNUSUAL),
    "a sign for kelvin": (with_text('"NetworkMode": "none"', '"Networ\u212aMode": "host"'), ASCII),
    "a sign for kelvin, escaped": (
        with_text('"NetworkMode": "none"', '"NetworkMode": "none", "Networ\\u212aMode": "host"'),
        UNUSUAL,
    ),
    "an escaped name": (with_text(PRIVILEGED, '"Privileg\\u0065d": false'), UNUSUAL),
    "an escaped value": (with_text('"none"', '"n\\u006fne"'), UNUSUAL),
    "an escaped slash": (with_text('"/workspace"', '"\\/workspace"'), UNUSUAL),
    "a profile with an escape": (with_text("seccomp=", "seccomp\\u003d"), UNUSUAL),
    "half a character": (with_text('"b"', '"\\ud800"'), UNUSUAL),
    "another form of a number": (with_text('"Soft": 0', '"Soft": 0.0'), UNUSUAL),
    "an exponent": (with_text('"Soft": 0', '"Soft": 0e5'), UNUSUAL),
    "minus nothing": (with_text('"Soft": 0', '"Soft": -0'), UNUSUAL),
    "a number that a double cannot hold": (with_text('"Soft": 0', '"Soft": 9007199254740993'), UNUSUAL),
    "a name of prototypes": (WHOLE[:-1] + b', "__proto__": {"Privileged": true}}', f"__proto__ {UNKNOWN}"),
    "a name of objects": (WHOLE[:-1] + b', "constructor": {}}', f"constructor {UNKNOWN}"),
    "an empty name": (WHOLE[:-1] + b', "": {}}', UNKNOWN),
    "a byte order mark": (b"\xef\xbb\xbf" + WHOLE, ASCII),
    "UTF-16": (WHOLE.decode().encode("utf-16"), ASCII),
    "UTF-16 without its mark": (WHOLE.decode().encode("utf-16-le"), ASCII),
    "UTF-32": (WHOLE.decode().encode("utf-32"), ASCII),
    "UTF-8 that is not valid": (WHOLE.replace(b'"b"', b'"\xff"'), ASCII),
    "an overlong form": (WHOLE.replace(b'"b"', b'"\xc1\xa2"'), ASCII),
    "a NUL": (WHOLE.replace(b'"b"', b'"\x00"'), ASCII),
    "a NUL at the end": (WHOLE + b"\x00", ASCII),
    "a control character in a string": (WHOLE.replace(b'"b"', b'"\x01"'), ASCII),
    "two documents": (WHOLE + WHOLE, ONE),
    "two documents in lines": (b"{}\n" + WHOLE, ONE),
    "something behind it": (WHOLE + b"]", ONE),
    "a comment": (WHOLE[:-1] + b"/* */}", ONE),
    "a comma at the end": (WHOLE[:-1] + b",}", ONE),
    "half of it": (WHOLE[:-1], ONE),
    "single quotes": (WHOLE.replace(b'"b"', b"'b'"), ONE),
    "NaN": (with_text('"Soft": 0', '"Soft": NaN'), ONE),
    "deep nesting": (b"[" * 20_000 + b"]" * 20_000, ONE),
    "too much of backslashes": (b'{"Image": "' + b"\\" * 50_000 + b'"}', "must be set"),
    "too much of quotes": (b'{"Image": ' + b'"' * 50_000, ONE),
    "nothing": (b"{}", "must be set"),
    "a list": (b"[]", "the body has a value"),
    "null": (b"null", "the body has a value"),
    "no settings of the host": ({**sandbox(), "HostConfig": {}}, "must be set"),
    "walls in a place that nobody looks at": (hidden_host(), "Healthcheck has a value"),
    "walls in a string": (quoted_host(), "HostConfig must be set"),
}


@pytest.mark.parametrize("what", BODIES)
def test_bodies_that_two_parsers_may_read_differently(watched: Watched, what: str) -> None:
    body, reason = BODIES[what]
    watched.refuses(lambda: watched.ask("POST", CREATE, body), reason, CREATE, "POST")


def test_what_the_daemon_reads_is_what_was_judged(watched: Watched) -> None:
    """The body is written anew."""
    spaced = json.dumps(sandbox(), indent=8).encode()
    answer = watched.ask("POST", CREATE, spaced)
    assert answer.status == 201, answer
    docker("rm", json.loads(answer.text)["Id"])
    sent = bytes(watched.relay.received[-1]).partition(b"\r\n\r\n")[2]
    assert json.loads(sent) == sandbox()
    assert len(sent) == len(json.dumps(sandbox(), separators=(",", ":")))
