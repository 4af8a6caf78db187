"""The cluster secret, root of the network key and of role keys: which of its sources counts. Pure."""

from __future__ import annotations

import hashlib
import hmac

from chorus.license.shown import DEV_PREFIX

SECRET_MIN_BYTES = 24
_DEV_INFO = b"chorus/v1/dev-cluster"
_DEV_CLUSTER_ID_INFO = b"chorus/v1/dev-cluster-id"
_AUDIT_INFO = b"chorus/v1/sentinel-audit"
_JOIN_INFO = b"chorus/v1/join"
# Enough that the clusters of a network do not share a name by chance.
_CLUSTER_ID_BYTES = 8

NO_SECRET = (
    "CHORUS_CLUSTER_SECRET: there is no cluster secret. It comes from the setting CHORUS_CLUSTER_SECRET (or "
    "CHORUS_CLUSTER_SECRET_FILE, at least 24 bytes), from the licence that KACHING gives out, or from a "
    "development licence (CHORUS_LICENSE_ID=dev-…): give one of the three"
)


def derive_dev_secret(license_id: str) -> bytes:
    """The cluster secret of a development licence's id."""
    return _hkdf32(license_id.encode(), _DEV_INFO)


def derive_audit_key(cluster_secret: bytes) -> bytes:
    """The key of the hashes by which the sentinel's findings in a cluster are told apart."""
    return _hkdf32(cluster_secret, _AUDIT_INFO)


def derive_join_key(cluster_secret: bytes) -> bytes:
    """The key by which a member and an agent that joins show each other that they hold the secret."""
    return _hkdf32(cluster_secret, _JOIN_INFO)


def derive_cluster_id(license_id: str) -> str:
    """The cluster of a licence when nothing names one. It is shown freely, so the id does not stand in it."""
    return f"cluster-{_hkdf32(license_id.encode(), _DEV_CLUSTER_ID_INFO)[:_CLUSTER_ID_BYTES].hex()}"


def _hkdf32(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869): no salt, 32 bytes, so one round of expansion."""
    key = hmac.new(bytes(hashlib.sha256().digest_size), secret, hashlib.sha256).digest()
    return hmac.new(key, info + b"\x01", hashlib.sha256).digest()


def choose_secret(setting: bytes, from_licence: bytes, license_id: str) -> bytes:
    """Setting before licence before development licence; empty when there is none."""
    if setting:
        return setting
    if from_licence:
        return from_licence
    return derive_dev_secret(license_id) if license_id.startswith(DEV_PREFIX) else b""
