# The API, the file server and nginx in one image; compose.yaml runs a container of each.
# For NVIDIA GPUs: docker build --build-arg TORCH_INDEX_URL=https://pypi.org/simple .
ARG DEBIAN=bookworm-slim

FROM debian:${DEBIAN} AS build
SHELL ["/bin/sh", "-euc"]
# Where PyTorch's build comes from: the CPU's by default, a tenth of CUDA's.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what rarely changes.
COPY install_torch.py requirements.lock requirements*.txt ./
RUN python3 -m venv /opt/flux \
    && /opt/flux/bin/python install_torch.py "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)"
# Also requirements-NAME.txt of each name in it: --build-arg EXTRAS="ray c2pa"
ARG EXTRAS=
# What the lock names, byte for byte; then what it has not.
# hadolint ignore=SC2046
RUN /opt/flux/bin/python -m pip install --no-deps --require-hashes -r requirements.lock \
    && /opt/flux/bin/python -m pip install -r requirements-s3.txt -r requirements-gguf.txt \
    $(for extra in $EXTRAS; do echo "-r requirements-$extra.txt"; done)
COPY . .
# Nothing is installed later, and no extension is built.
RUN /opt/flux/bin/python -m pip install --no-deps . \
    && /opt/flux/bin/python -m pip uninstall -y pip \
    && rm -rf /opt/flux/lib/python3*/site-packages/torch/include

FROM debian:${DEBIAN}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates nginx-light python3 \
    && rm -rf /var/lib/apt/lists/* /var/log/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin flux \
    && mkdir -p /var/lib/flux-imaging-api/images /var/cache/huggingface \
    && chown -R flux:flux /var/lib/flux-imaging-api /var/cache/huggingface
COPY --from=build /opt/flux /opt/flux
ENV PATH=/opt/flux/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/cache/huggingface \
    XDG_STATE_HOME=/var/lib
# What is written: pictures, downloaded models; /tmp beside them where the root file
# system is read-only.
VOLUME ["/var/lib/flux-imaging-api", "/var/cache/huggingface"]
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["gunicorn", "-c", "python:flux_server.gunicorn_settings", "-b", "0.0.0.0:8000", "flux_server.wsgi:app"]
