"""What it means that an agent with a development licence listens beyond loopback, in words. Pure."""

from __future__ import annotations

from chorus.config.model import Settings


def exposure(settings: Settings) -> str:
    """The warning for start, health and doctor; empty when there is nothing to warn of."""
    if settings.license_kind != "development" or not settings.network_open:
        return ""
    where = f"P2P listens beyond loopback ({', '.join(settings.p2p_hosts)}) with a development licence"
    if settings.secret_derived:
        return (
            f"{where}, and the cluster secret follows from the licence id: whoever knows or guesses the id "
            "can join this mesh, read its tasks and run some on its agents. Give all agents a "
            "CHORUS_CLUSTER_SECRET_FILE (openssl rand -hex 32), or leave CHORUS_P2P_HOST unset"
        )
    return (
        f"{where}: whoever holds the cluster secret can join this mesh, read its tasks and run some on its "
        "agents. Keep the secret where only agents can read it; a development licence is not for production"
    )
