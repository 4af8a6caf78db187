# The agent's image. `make image` builds it with a wheel and packages from the host (dist/) and a base made from
# Debian's packages, without network; without those, `docker build .` compiles the wheel in the first stage, with network:
#   docker build --build-arg CHORUS_BUILD_COMMIT=$(git rev-parse --short HEAD) --build-arg CHORUS_BUILD_DATE=$(date -I) .
ARG BUILD_BASE=rust:1-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
# What the binary says of itself; the context has no .git to ask.
ARG CHORUS_BUILD_COMMIT=unknown
ARG CHORUS_BUILD_DATE=unknown
WORKDIR /src
COPY . .
RUN set -eu; \
    offline=; \
    if ls dist/chorus_agent-*.whl >/dev/null 2>&1; then offline="--no-index --find-links dist"; fi; \
    if [ -z "$offline" ]; then \
      apt-get update && apt-get install -y --no-install-recommends python3 python3-venv protobuf-compiler; \
      python3 -m venv /build && /build/bin/pip install -c constraints.txt maturin; \
      /build/bin/maturin build --release --compatibility linux --out dist; \
    fi; \
    python3 -m venv /opt/chorus; \
    /opt/chorus/bin/pip install --no-cache-dir --disable-pip-version-check $offline -c constraints.txt dist/chorus_agent-*.whl; \
    /opt/chorus/bin/pip uninstall -y -q pip setuptools

FROM ${BASE}
USER root
RUN set -eu; \
    if ! [ -x /usr/bin/python3 ] || ! [ -x "$(command -v pidof)" ]; then \
      apt-get update && apt-get install -y --no-install-recommends python3 ca-certificates sysvinit-utils; \
      rm -rf /var/lib/apt/lists/*; \
    fi; \
    echo 'chorus:x:10001:10001:CHORUS agent:/var/lib/chorus:/usr/sbin/nologin' >>/etc/passwd; \
    echo 'chorus:x:10001:' >>/etc/group; \
    install -d -m 0700 -o 10001 -g 10001 /var/lib/chorus /run/chorus
COPY --from=build /opt/chorus /opt/chorus
# A test keeps the version equal to the package's. scripts/image.sh adds when it was made, and of what if that is known.
ARG CHORUS_VERSION=0.5.0-dev
ARG CHORUS_BUILD_COMMIT=unknown
LABEL org.opencontainers.image.title="CHORUS agent" \
      org.opencontainers.image.description="An autonomous agent of a mesh that runs tasks in Docker sandboxes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${CHORUS_VERSION}" \
      org.opencontainers.image.revision="${CHORUS_BUILD_COMMIT}"
ENV PATH=/opt/chorus/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/chorus \
    CHORUS_DATA_DIR=/var/lib/chorus \
    CHORUS_API_HOST=0.0.0.0 \
    CHORUS_REJOIN=true
VOLUME /var/lib/chorus
EXPOSE 9000 8080 8081
USER 10001:10001
# Tasks in flight are finished first: give the stop CHORUS_SHUTDOWN_TIMEOUT and 90 s (docker stop -t, stop_grace_period).
STOPSIGNAL SIGTERM
# Live, never ready: an orchestrator restarts what fails this, and a lone or busy agent must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["python3", "-m", "chorus.agent.probe"]
ENTRYPOINT ["chorus-agent"]
