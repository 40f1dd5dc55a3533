# The two commands:  make serve   make test
PYTHON3 ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)
SERVE_OPTIONS ?=
# Hundreds of servers that tests start read compiled modules, a second sooner each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install install-dev serve test test-deps lint fuzz bench \
	gpu-check soak chaos fleet-load hostile-nginx lines wheels mutants clean image \
	gpu-matrix mixed lock sbom bench-charts bench-peers test-ray
.DEFAULT_GOAL := help

help:
	@echo "make serve    install what is needed, then run the API and the file server"
	@echo "make test     install what is needed, then run every test"
	@echo "make install  only install"

$(PYTHON):
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: set PYTHON3=..."; exit 1; }
	@$(PYTHON3) -c 'import ensurepip' 2>/dev/null || \
		{ echo "python3-venv is missing: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON3) -m venv $(VENV)

# Torch first, from the index that fits the machine; see install_torch.py. The rest is
# what requirements.lock names, byte for byte, whatever an index says today.
$(VENV)/.installed: requirements.lock install_torch.py | $(PYTHON)
	$(PYTHON) install_torch.py $(TORCH)
	$(PYTHON) -m pip install --no-deps --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-clients.txt requirements-s3.txt requirements-gguf.txt requirements-c2pa.txt
	$(PYTHON) -m pip install -r requirements-dev.txt
	$(PYTHON) -m pip install --no-deps -r requirements-clients.txt
	@touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

serve: install
	@exec $(PYTHON) -m flux_api serve $(SERVE_OPTIONS)

# Three files at a time on two cores: much of the time servers are waited for.
TEST_OPTIONS ?= -n 3 --dist loadfile --no-loadscope-reorder
test: install-dev
	$(PYTHON) -m pytest $(TEST_OPTIONS)

# Ray brings packages that nothing else may come to need: an environment of its own, to
# which the other lends the rest.
RAY_VENV := .venv-ray
$(RAY_VENV)/.installed: requirements-ray.txt $(VENV)/.installed-dev
	$(PYTHON) -m venv --clear $(RAY_VENV)
	$(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(RAY_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/lent.pth"
	$(RAY_VENV)/bin/python -m pip install --retries 10 --timeout 60 -r requirements-ray.txt
	@touch $@

test-ray: $(RAY_VENV)/.installed
	$(RAY_VENV)/bin/python -m pytest tests/ray

lint: install-dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

FUZZ_OPTIONS ?= --count 15000 decoder mask
fuzz: install-dev
	$(PYTHON) -m tests.fuzz $(FUZZ_OPTIONS)

bench: install
	$(PYTHON) -m benchmarks.serving

# Beside another server, which it installs into .venv-peers.
bench-peers: install
	$(PYTHON) -m benchmarks.peers

# docs/images/bench-*.svg, from what was measured last.
bench-charts: install-dev
	$(PYTHON) -m benchmarks.charts

# FLUX_PERFORMANCE=speed by the real compiler; needs g++ and some minutes.
mixed: install-dev
	$(PYTHON) -m tests.mixed

# With what is there: it installs and downloads nothing.
GPU_CHECK_OPTIONS ?=
gpu-check:
	$(or $(wildcard $(PYTHON)),$(PYTHON3)) -m benchmarks.gpu_check $(GPU_CHECK_OPTIONS)

SOAK_SECONDS ?= 1800
soak: install
	$(PYTHON) -m benchmarks.soak $(SOAK_SECONDS)

CHAOS_SECONDS ?= 600
chaos: install
	$(PYTHON) -m benchmarks.chaos $(CHAOS_SECONDS)

MINUTES ?= 3
fleet-load: install-dev
	$(PYTHON) -m benchmarks.fleet_load --seconds $$(($(MINUTES) * 60))

# What strangers send, through nginx.
HOSTILE := $(addprefix tests/,http/test_hostile.py http/test_auth.py http/test_cross_site.py \
	http/test_large_bodies.py net/test_fetching.py)
hostile-nginx: install-dev
	BEHIND_NGINX=1 $(PYTHON) -m pytest -q $(HOSTILE)
	BEHIND_NGINX=2 $(PYTHON) -m pytest -q $(HOSTILE)

# Every set, however it is held, at every task; on a simulated GPU where there is none.
gpu-matrix: install-dev
	$(PYTHON) -m tests.gpu.matrix

# Asks the package index; installs nothing.
wheels: | $(PYTHON)
	$(PYTHON) -m scripts.wheels $(WHEELS_OPTIONS)

# For Python 3.11 and later on every platform. Torch, and what only its CUDA build
# needs, is pinned by its version alone: builds of several indexes have to fit.
LOCK_OPTIONS ?=
CUDA_ONLY := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,\
	cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver\
	cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
lock: install-dev
	$(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header $(addprefix --no-emit-package ,$(CUDA_ONLY)) \
		$(LOCK_OPTIONS) requirements.txt --output-file requirements.lock

# What is installed, with licences, in CycloneDX's format.
sbom: install-dev
	$(PYTHON) -m cyclonedx_py environment --output-format JSON --output-file sbom.cdx.json $(PYTHON)

# The Dockerfile's lines in an empty Debian, without a container engine: as root, minutes.
IMAGE_OPTIONS ?=
image: | $(PYTHON)
	command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap
	$(PYTHON) -m scripts.check_image $(IMAGE_OPTIONS)

lines:
	$(PYTHON3) -m scripts.count_lines flux_api file_server

# Some of these survive whatever the tests do: see what a diff changes.
N ?= 60
SEED ?=
mutants: install-dev
	$(PYTHON) -m scripts.run_mutants $(N) $(if $(SEED),--seed $(SEED))

# The system programs that some tests drive; what is there already is left alone.
test-deps:
	apt-get update
	command -v git >/dev/null || apt-get install -y --no-install-recommends git
	command -v curl >/dev/null || apt-get install -y --no-install-recommends curl
	command -v nginx >/dev/null || apt-get install -y --no-install-recommends nginx-light
	command -v node >/dev/null || apt-get install -y --no-install-recommends nodejs
	command -v npm >/dev/null || apt-get install -y --no-install-recommends npm
	command -v chromium-headless-shell >/dev/null || apt-get install -y --no-install-recommends chromium-headless-shell
	command -v promtool >/dev/null || apt-get install -y --no-install-recommends prometheus
	command -v exiftool >/dev/null || apt-get install -y --no-install-recommends libimage-exiftool-perl
	command -v systemd-analyze >/dev/null || apt-get install -y --no-install-recommends systemd
	command -v rsync >/dev/null || apt-get install -y --no-install-recommends rsync
	command -v prlimit >/dev/null || apt-get install -y util-linux
	command -v g++ >/dev/null || apt-get install -y --no-install-recommends g++

clean:
	rm -rf $(VENV) $(RAY_VENV) .venv-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis

-include training/train.mk
