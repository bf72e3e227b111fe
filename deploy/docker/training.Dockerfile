# What trains, tunes, packs and watches: everything but Ray, W&B and the developers' tools, with torch for the CPU.
#   podman run --read-only --tmpfs /tmp -v ./workspace:/workspace -v ./films:/films:ro rounds-training data prepare /films --name films
# For a GPU: --build-arg TORCH="--torch-backend=cu128" (any of uv's) and a container runtime that shows the device.
ARG BASE=docker.io/library/python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ARG TORCH="--torch-backend=cpu"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
WORKDIR /build
COPY pyproject.toml requirements.lock README.md LICENSE ./
# CUDA's packages come with the torch build that is asked for, or not at all: the lock names them for whoever takes the index's own
RUN --mount=type=secret,id=certificate \
    if [ -s /run/secrets/certificate ]; then export PIP_CERT=/run/secrets/certificate SSL_CERT_FILE=/run/secrets/certificate; fi; \
    python3 -m venv /build/tools && /build/tools/bin/pip install --quiet --no-cache-dir uv==0.13.8 \
    && grep -vE '^(nvidia|cuda|triton)' requirements.lock > constraints.txt \
    && python3 -m venv --without-pip /opt/rounds \
    && eval "/build/tools/bin/uv pip install --quiet --python /opt/rounds/bin/python -c constraints.txt -r pyproject.toml \
       --extra train --extra dicom --extra stores --extra pretrained $TORCH"
COPY src src
RUN --mount=type=secret,id=certificate \
    if [ -s /run/secrets/certificate ]; then export SSL_CERT_FILE=/run/secrets/certificate; fi; \
    /build/tools/bin/uv pip install --quiet --python /opt/rounds/bin/python --no-deps -b requirements.lock .
COPY deploy/docker/start.py /opt/rounds/start.py

FROM ${BASE}
COPY --from=build /opt/rounds /opt/rounds
# the workspace of nobody in particular: whoever mounts a folder decides who may write it
RUN install -d -o 10001 -g 10001 /workspace
ENV PATH=/opt/rounds/bin:$PATH ROUNDS_HOME=/workspace HOME=/tmp MPLCONFIGDIR=/tmp PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE
USER 10001:10001
WORKDIR /workspace
VOLUME ["/workspace"]
# it may run for days and answer nobody: healthy is that the workspace can be written
HEALTHCHECK --interval=60s --timeout=10s --retries=3 CMD ["/opt/rounds/bin/python", "/opt/rounds/start.py", "--writable"]
ENTRYPOINT ["/opt/rounds/bin/python", "/opt/rounds/start.py"]
CMD ["--help"]
