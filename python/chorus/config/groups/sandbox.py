"""Settings of sandboxes: which images may run, and how much one may use at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from chorus.config import forms
from chorus.config.setting import Form, Group, Setting

WARM_MAX: Final = 64

DEFAULT_IMAGES: Final = {
    "base": "anthonyrawlins/chorus-base:latest",
    "python": "anthonyrawlins/chorus-python-dev:latest",
    "node": "anthonyrawlins/chorus-node-dev:latest",
    "javascript": "anthonyrawlins/chorus-node-dev:latest",
    "typescript": "anthonyrawlins/chorus-node-dev:latest",
    "rust": "anthonyrawlins/chorus-rust-dev:latest",
    "go": "anthonyrawlins/chorus-go-dev:latest",
    "java": "anthonyrawlins/chorus-java-dev:latest",
    "c": "anthonyrawlins/chorus-cpp-dev:latest",
    "cpp": "anthonyrawlins/chorus-cpp-dev:latest",
}


def _images(text: str) -> Any:
    return forms.IMAGES.parse(text) or DEFAULT_IMAGES


@dataclass(frozen=True, kw_only=True)
class SandboxSettings(Group):
    """What a sandbox may be made of and how much it may use at most."""

    title = "Sandboxes"

    images: Annotated[
        dict[str, str],
        Setting(
            "CHORUS_SANDBOX_IMAGES",
            Form(forms.IMAGES.words, _images, DEFAULT_IMAGES),
            help="The image of each language; only these, and what `CHORUS_SANDBOX_ALLOW` names, may run.",
            otherwise="`anthonyrawlins/chorus-base:latest`, and `chorus-python-dev`, `chorus-node-dev`, "
            "`chorus-rust-dev`, `chorus-go-dev`, `chorus-java-dev`, `chorus-cpp-dev` for their languages",
        ),
    ]
    allow: Annotated[
        tuple[str, ...],
        Setting("CHORUS_SANDBOX_ALLOW", forms.many("images"), help="More images that tasks may name."),
    ]
    cpus: Annotated[
        float,
        Setting(
            "CHORUS_SANDBOX_CPUS",
            forms.number(0.01, 1024, "a number of cores such as 2 or 0.5"),
            "2",
            "Cores of one sandbox at most; a task may ask for less, here and below.",
        ),
    ]
    memory_bytes: Annotated[
        int, Setting("CHORUS_SANDBOX_MEMORY", forms.size("8MB"), "2GB", "Memory of one sandbox at most.")
    ]
    pids: Annotated[
        int,
        Setting(
            "CHORUS_SANDBOX_PIDS",
            forms.whole(8, 1_000_000, "a whole number of at least 8"),
            "256",
            "Processes of one sandbox at most.",
        ),
    ]
    disk_bytes: Annotated[
        int, Setting("CHORUS_SANDBOX_DISK", forms.size("1MB"), "4GB", "Disk of one sandbox at most.")
    ]
    egress: Annotated[
        tuple[str, ...],
        Setting(
            "CHORUS_SANDBOX_EGRESS",
            forms.HOST_PORTS,
            help="What tasks with `network: egress` may reach.",
            later=True,
        ),
    ]
    warm: Annotated[
        int,
        Setting(
            "CHORUS_SANDBOX_WARM",
            forms.whole(0, WARM_MAX),
            "1",
            "Clean containers kept started for each image used lately.",
        ),
    ]
