"""Blobs: bytes by their SHA-256 on this agent's disk, and their way to and from other members."""

from chorus.blobs.ledger import BlobSpaceFull
from chorus.blobs.store import BLOB_MAX_BYTES, Blob, BlobMismatch, BlobStore, BlobTooLarge

__all__ = ["BLOB_MAX_BYTES", "Blob", "BlobMismatch", "BlobSpaceFull", "BlobStore", "BlobTooLarge"]
