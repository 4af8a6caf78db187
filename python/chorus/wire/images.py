"""Names of container images."""

from __future__ import annotations


def repository_and_tag(image: str) -> tuple[str, str]:
    """What a pull asks for: the repository, and a tag or a digest; `latest` where the image names neither."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    # A colon before the last slash is a registry's port, not a tag.
    tagged = ":" in image.rsplit("/", 1)[-1]
    repository, _, tag = image.rpartition(":") if tagged else (image, "", "latest")
    return repository, tag
