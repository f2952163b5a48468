FROM python:3.13-slim AS build
WORKDIR /src

# Dependencies first: they change less often than the code. Everything is checked against its hash.
COPY constraints.txt constraints-server.txt constraints-aws.txt constraints-mcp.txt constraints-telemetry.txt ./
RUN awk '/^[^ #]/ { wanted = /^(pip|setuptools)==/ } wanted' constraints.txt > tools.txt \
    && pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: --requirement tools.txt \
    && python -m venv --without-pip /opt/memoryd \
    && pip --python /opt/memoryd/bin/python install --no-cache-dir \
        --require-hashes --no-deps --only-binary :all: \
        --requirement constraints-server.txt --requirement constraints-aws.txt \
        --requirement constraints-mcp.txt --requirement constraints-telemetry.txt

COPY LICENSE README.md pyproject.toml ./
COPY migrations migrations
COPY service service
# Of a version there is one only.
# hadolint ignore=DL3013
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip --python /opt/memoryd/bin/python install --no-cache-dir \
        --no-index --no-deps --find-links wheels memoryd


FROM python:3.13-slim

# A number for the user, so that a cluster can see it is not root. Nothing installs packages here.
RUN groupadd --gid 10001 memoryd \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin memoryd \
    && install --directory --owner 10001 --group 10001 /data \
    && pip uninstall --yes pip

COPY --from=build /opt/memoryd /opt/memoryd
ENV PATH=/opt/memoryd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MEMORYD_HOST=0.0.0.0

# Where the SQLite file goes, its name being relative.
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 50051 50052
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/50052 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3 || exec memoryd health"]
ENTRYPOINT ["memoryd"]
CMD ["serve"]
