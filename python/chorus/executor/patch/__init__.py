"""Patches in git's form between two trees of files, made and applied without git."""

from chorus.executor.patch.applying import PatchRefused, apply_patch
from chorus.executor.patch.ignoring import Ignored
from chorus.executor.patch.making import PATCH_BYTES_MAX, LeftOut, Patch, make_patch
from chorus.executor.patch.tree import File, Tree, tree_of_tar

__all__ = [
    "PATCH_BYTES_MAX",
    "File",
    "Ignored",
    "LeftOut",
    "Patch",
    "PatchRefused",
    "Tree",
    "apply_patch",
    "make_patch",
    "tree_of_tar",
]
