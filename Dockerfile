# Two images from one source: `docker build --target relay .` and `docker build --target upstream .`
#
# What an image holds is made by container/build-tree.sh, which the tests run too. Both services run as a numeric user,
# write to /data only, and so work with a read-only root file system.
ARG PYTHON=3.11
ARG DEBIAN=trixie

# The full image, because it has `strip`.
FROM python:${PYTHON}-${DEBIAN} AS source
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY requirements/relay.txt requirements/upstream.txt requirements/
COPY container/build-tree.sh container/
COPY relay relay
COPY upstream upstream

FROM source AS relay-tree
RUN --mount=type=cache,target=/root/.cache/pip sh container/build-tree.sh relay /opt/halyard

FROM source AS upstream-tree
RUN --mount=type=cache,target=/root/.cache/pip sh container/build-tree.sh upstream /opt/halyard

FROM python:${PYTHON}-slim-${DEBIAN} AS runtime
# Nothing is installed at run time, so there is nothing to install with.
RUN rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
      /usr/local/bin/wheel /usr/local/bin/idle* /usr/local/bin/pydoc* \
 && install -d -o 65532 -g 65532 -m 0700 /data
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/halyard/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
VOLUME /data
STOPSIGNAL SIGTERM

FROM runtime AS upstream
LABEL org.opencontainers.image.title="halyard-upstream" \
      org.opencontainers.image.description="The authority of Halyard: projects, flags, keys, audit and the change stream."
# SQLite sorts what does not fit into memory in a file; the data directory is the one place that can be written.
ENV HALYARD_UPSTREAM_SERVE__HOST=0.0.0.0 \
    HALYARD_UPSTREAM_DATA__DIR=/data \
    SQLITE_TMPDIR=/data
COPY --from=upstream-tree /opt/halyard /opt/halyard
EXPOSE 8700
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["/opt/halyard/bin/python", "-Ic", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8700, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/halyard/bin/halyard"]
CMD ["upstream", "serve"]

# Last, so that a build without a target makes the one that runs in many places.
FROM runtime AS relay
LABEL org.opencontainers.image.title="halyard-relay" \
      org.opencontainers.image.description="Evaluates feature flags beside your application, also while the upstream is away."
ENV HALYARD_RELAY_SERVE__HOST=0.0.0.0 \
    HALYARD_RELAY_ADMIN__HOST=0.0.0.0 \
    HALYARD_RELAY_DATA__DIR=/data
COPY --from=relay-tree /opt/halyard /opt/halyard
EXPOSE 8701 8702
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["/opt/halyard/bin/python", "-Ic", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8702, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["/opt/halyard/bin/halyard-relay"]
