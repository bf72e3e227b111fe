# What answers: the core installation, DICOM, PostgreSQL and S3, on a file system without a shell or a package manager.
#   make images                         build it (buildah, or TOOL=docker)
#   podman run --read-only --tmpfs /tmp -v ./workspace:/workspace -p 127.0.0.1:8000:8000 rounds-api
# All state lies in /workspace, which user 10001 must be able to write. PORT and WEB_CONCURRENCY (worker processes) are
# honoured. A command after the image's name is a command of `rounds`: ... rounds-api keys add clinic --scope predict
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
# a certificate of the network that is built in comes as a secret: no layer holds it
RUN --mount=type=secret,id=certificate \
    if [ -s /run/secrets/certificate ]; then export PIP_CERT=/run/secrets/certificate SSL_CERT_FILE=/run/secrets/certificate; fi; \
    python3 -m venv /build/tools && /build/tools/bin/pip install --quiet --no-cache-dir uv==0.13.8 \
    && python3 -m venv --without-pip /opt/rounds \
    && /build/tools/bin/uv pip install --quiet --python /opt/rounds/bin/python -c requirements.lock -r pyproject.toml \
       --extra dicom --extra stores \
    && /build/tools/bin/uv pip install --quiet --python /build/tools/bin/python -c requirements.lock cyclonedx-bom
COPY src src
RUN --mount=type=secret,id=certificate \
    if [ -s /run/secrets/certificate ]; then export SSL_CERT_FILE=/run/secrets/certificate; fi; \
    /build/tools/bin/uv pip install --quiet --python /opt/rounds/bin/python --no-deps -b requirements.lock .
COPY deploy/docker/slim.py deploy/docker/loaded.py deploy/docker/root.py deploy/docker/start.py ./
# the bill of materials; what serving never loads goes; then every module is imported (and compiled, for no start can on a read-only root)
RUN /build/tools/bin/cyclonedx-py environment /opt/rounds/bin/python --of JSON -o /opt/rounds/sbom.json \
    && python3 slim.py /opt/rounds/lib/python3.*/site-packages \
    && find "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" -name __pycache__ -prune -exec rm -rf {} + \
    && PYTHONDONTWRITEBYTECODE="" /opt/rounds/bin/python loaded.py \
    && cp start.py /opt/rounds/start.py \
    && /opt/rounds/bin/python root.py /opt/rounds /image

FROM scratch
COPY --from=build /image /
ENV PATH=/opt/rounds/bin:/usr/local/bin:/usr/bin ROUNDS_HOME=/workspace HOME=/tmp PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE LANG=C.UTF-8
USER 10001:10001
WORKDIR /workspace
VOLUME ["/workspace"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["/opt/rounds/bin/python", "/opt/rounds/start.py", "--healthy"]
ENTRYPOINT ["/opt/rounds/bin/python", "/opt/rounds/start.py"]
