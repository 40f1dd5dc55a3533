"""The manifests against Kubernetes' own schemas; built where kustomize is there."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import kubernetes_validate
import pytest
import requests
import yaml

from file_server import Settings as FileSettings
from flux_api.commands.nginx_refusals import refusals_text
from flux_api.setting_values import unknown
from flux_api.settings import Settings
from tests.deploy.test_nginx_instances import fill, forget, post, release, stats
from tests.support.programs import need
from tests.support.raw_http import exchange
from tests.support.servers import ROOT, free_port, run, run_api, wait_for

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(p for p in FOLDER.rglob("*.yaml") if p.name != "kustomization.yaml")
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
# Not KEDA's own schema, which no package brings: the fields that are used here.
SCALED_OBJECT = {
    "scaleTargetRef": {"kind", "name"},
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "cooldownPeriod": int,
    "advanced": {"horizontalPodAutoscalerConfig"},
    "triggers": list,
}

# Nor KubeRay's.
RAY_CLUSTER = {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
RAY_HEAD = {"rayStartParams", "template"}
RAY_WORKERS = RAY_HEAD | {"groupName", "replicas", "minReplicas", "maxReplicas"}


def check_ray_cluster(spec):
    """Its own fields, and each of its pods by Kubernetes' schema."""
    assert set(spec) == RAY_CLUSTER
    assert set(spec["headGroupSpec"]) == RAY_HEAD
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert set(group) in (RAY_HEAD, RAY_WORKERS)
        # Ray's command line takes text alone.
        assert all(isinstance(v, str) for v in group["rayStartParams"].values())
        pod = group["template"]
        metadata = pod["metadata"] | {"name": "ray"}
        pod = {"apiVersion": "v1", "kind": "Pod"} | pod | {"metadata": metadata}
        kubernetes_validate.validate(pod, "1.31", strict=True)


def check(thing):
    """Raise unless the schema of its kind takes ``thing``, with no field unknown."""
    if thing["kind"] == "RayCluster":
        assert thing["apiVersion"] == "ray.io/v1"
        check_ray_cluster(thing["spec"])
        return
    if thing["kind"] == "ScaledObject":
        assert thing["apiVersion"] == "keda.sh/v1alpha1"
        for name, value in thing["spec"].items():
            expected = SCALED_OBJECT[name]
            if isinstance(expected, set):
                assert set(value) == expected
            else:
                assert isinstance(value, expected)
        return
    kubernetes_validate.validate(thing, "1.31", strict=True)


def read(path):
    return [thing for thing in yaml.safe_load_all(path.read_text("utf-8")) if thing]


@pytest.fixture(scope="module", params=OVERLAYS)
def built(request, tmp_path_factory):
    """What an overlay comes to, by kind and name."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which has kustomize in it, is not installed")
    copy = tmp_path_factory.mktemp("kubernetes") / "copy"
    shutil.copytree(FOLDER, copy)
    for name in ("api-keys", "bearer-token", "upload-token"):
        (copy / "base" / "secrets" / name).write_text("alice:not-a-real-key\n")
    (copy / "overlays" / "ray" / "secrets" / "token").write_text("0" * 64)
    command = ["kubectl", "kustomize", str(copy / "overlays" / request.param)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    things = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_manifest_is_valid(path):
    assert read(path)
    for thing in read(path):
        check(thing)


def test_a_wrong_field_is_noticed():
    (thing,) = [t for t in read(FOLDER / "base/api.yaml") if t["kind"] == "StatefulSet"]
    thing["spec"]["template"]["spec"]["containers"][0]["lifecycl"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(thing)


def pods(built):
    """The templates of all pods, by the names of their containers."""
    found = {}
    for thing in built.values():
        spec = thing.get("spec", {})
        groups = spec.get("workerGroupSpecs", []) + [spec.get("headGroupSpec", {})]
        for group in (spec, *groups):
            if "containers" in (group.get("template") or {}).get("spec", {}):
                pod = group["template"]["spec"]
                found[pod["containers"][0]["name"]] = pod
    return found


def test_what_is_built_is_valid_and_runs_on_a_gpu(built):
    for thing in built.values():
        check(thing)
    containers = {name: pod["containers"][0] for name, pod in pods(built).items()}
    artist = containers["ray-worker" if "ray-worker" in containers else "api"]
    assert artist["resources"]["limits"]["nvidia.com/gpu"] == "1"
    own = [c["image"] for c in containers.values() if "flux-imaging" in c["image"]]
    assert artist["image"] in own
    # Replaced once, however many overlays do it.
    assert all(image.count("registry.example.org/") == 1 for image in own)
    assert built["Secret", "flux"]["data"].keys() == {
        "api-keys",
        "bearer-token",
        "upload-token",
    }


def test_every_variable_is_a_setting():
    for name, settings in (("api", Settings), ("files", FileSettings)):
        for thing in read(FOLDER / "base" / f"{name}.yaml"):
            pod = thing.get("spec", {}).get("template")
            if not pod:
                continue
            (container,) = pod["spec"]["containers"]
            names = {variable["name"] for variable in container["env"]} - {"HF_HOME"}
            known = {str(f.alias) for f in settings.model_fields.values()}
            assert names <= known
    assert list(unknown(Settings, {"FLUX_INSTANC": "0"}))


@pytest.mark.parametrize("built", ["ray"], indirect=True)
def test_a_ray_cluster_is_of_the_pinned_version_and_has_what_the_api_asks_for(built):
    spec = built["RayCluster", "ray"]["spec"]
    pins = (ROOT / "requirements-ray.txt").read_text("utf-8")
    assert f"=={spec['rayVersion']} " in pins
    (api,) = built["StatefulSet", "api"]["spec"]["template"]["spec"]["containers"]
    (workers,) = spec["workerGroupSpecs"]
    assert f"--replicas {workers['replicas']} " in api["args"][0]
    known = {str(f.alias) for f in Settings.model_fields.values()}
    settings = {variable["name"] for variable in api["env"]} - {"HF_HOME"}
    assert {name for name in settings if not name.startswith("RAY_")} <= known
    # The paths of files are the same on both sides.
    volumes = {v["mountPath"] for v in api["volumeMounts"]}
    (worker,) = workers["template"]["spec"]["containers"]
    assert {"/models", "/dev/shm", "/tmp", "/run/secrets/ray"} <= volumes
    assert {v["mountPath"] for v in worker["volumeMounts"]} <= volumes


def test_the_scaler_asks_for_a_metric_that_there_is():
    (scaler,) = read(FOLDER / "overlays/keda/scaler.yaml")
    query = scaler["spec"]["triggers"][0]["metadata"]["query"]
    (metric,) = re.findall(r"flux_\w+", query)
    assert metric in (ROOT / "docs" / "metrics.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["api", "gateway"])
def test_requests_are_drained_before_a_pod_ends(name):
    (pod,) = [
        thing["spec"]["template"]["spec"]
        for thing in read(FOLDER / "base" / f"{name}.yaml")
        if "template" in thing.get("spec", {})
    ]
    _, sleep = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    longest = Settings().request_timeout + int(sleep)
    assert pod["terminationGracePeriodSeconds"] > longest


def gateway_text(folder):
    """The gateway's configuration for this machine: names of a cluster are nowhere
    else, and older versions of nginx do not know 'resolve'."""
    text = (FOLDER / "base" / "nginx.conf").read_text("utf-8")
    text = text.replace(" resolve;", ";").replace("/tmp/", f"{folder}/")
    return text.replace("kube-dns.kube-system.svc.cluster.local", "127.0.0.1")


def test_the_gateways_configuration_is_one(tmp_path):
    text = re.sub(
        r"server \w+(-ready)?\.flux\.svc\.cluster\.local",
        "server 127.0.0.1",
        gateway_text(tmp_path),
    )
    (tmp_path / "nginx.conf").write_text(text)
    command = [need("nginx"), "-t", "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    # What nginx says itself is what the nginx of 'serve' says.
    assert textwrap.indent(refusals_text(), " " * 4) in text
    for body in re.findall(r"\breturn \d+ *(.*);", text):
        assert body.startswith("$flux_") or json.loads(body.strip("'"))


class Nameless:
    """A resolver that knows no name."""

    def __init__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self):
        while True:
            asked, who = self._socket.recvfrom(512)
            # The same question, as an answer: no such name.
            self._socket.sendto(asked[:2] + b"\x81\x83" + asked[4:], who)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """(the gateway, two pods that hold one request and let one wait); a third is
    starting, others are gone"""
    folder, port = tmp_path_factory.mktemp("gateway"), free_port()
    with contextlib.ExitStack() as stack:
        pods = [
            stack.enter_context(
                run_api(
                    app="tests.support.fake_app:app",
                    FLUX_INSTANCE=number,
                    FLUX_TRUSTED_PROXIES=1,
                    FLUX_MAX_QUEUE=1,
                )
            )
            for number in range(2)
        ]
        own = [pod.wait_ready().url.removeprefix("http://") for pod in pods]
        text = gateway_text(folder).replace("listen 8080", f"listen 127.0.0.1:{port}")
        ready = "        server api-ready.flux.svc.cluster.local:8000;\n"
        assert ready in text
        text = text.replace(ready, "".join(f"server {at};\n" for at in own))
        (named,) = re.findall(r'"~\^g.*api-\$number.*;', text)
        at = [*own, f"127.0.0.1:{free_port()}"]
        known = "".join(f'"~^g{n}-" {address};\n' for n, address in enumerate(at))
        text = text.replace(named, known + named)
        names = Nameless().address
        text = text.replace("resolver 127.0.0.1 ", f"resolver {names} ipv6=off ")
        text = text.replace("files.flux.svc.cluster.local", "127.0.0.1")
        (folder / "nginx.conf").write_text(text)
        command = [need("nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        command += ["-g", "daemon off;"]
        url = f"http://127.0.0.1:{port}"
        server = stack.enter_context(run(command, url=url, settings={}))
        wait_for(lambda: requests.get(f"{url}/healthz", timeout=5).ok, 20, server)
        yield server, pods


def test_a_full_pod_hands_its_requests_on_to_another(gateway):
    server, pods = gateway
    with ThreadPoolExecutor(8) as pool:
        # Past the gateway, which does not know that this pod is full.
        held = fill(pool, pods[:1])
        before = stats(pods[1])["begun"]
        assert all(post(server).ok for _ in range(6))
        assert stats(pods[1])["begun"] == before + 6
        # Only where a key began it is known.
        keys = [{"Idempotency-Key": f"key-{number}"} for number in range(8)]
        told = {post(server, headers=key).status_code for key in keys}
        assert told == {200, 429}
        held += fill(pool, pods[1:])
        forged = {"X-Flux-Next": "@next9", "X-Accel-Redirect": "@away"}
        answer = post(server, headers=forged)
        assert answer.status_code == 429
        assert answer.json()["error"].startswith("Every place in the queue is taken: ")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        release(pods)
        assert all(one.result().ok for one in held)
    forget(pods)


def test_what_a_pod_named_is_found_by_its_id(gateway):
    server, pods = gateway
    forget(pods)
    ids = {}
    body = {"prompt": "x", "width": 64, "height": 64}
    while len(ids) < len(pods):
        task = requests.post(f"{server.url}/v1/flux-dev", json=body, timeout=60)
        if task.ok:
            ids[task.json()["id"][:3]] = task.json()["id"]
    for name in ids.values():
        polled = f"{server.url}/v1/get_result?id={name}"
        wait_for(lambda p=polled: requests.get(p).json()["status"] == "Ready", 20)
        assert requests.get(f"{server.url}/v1/samples/{name}", timeout=10).ok
        events = requests.get(f"{server.url}/jobs/events?ids={name}", timeout=10)
        assert "event: done" in events.text
        listed = requests.get(f"{server.url}/v1/jobs?ids={name}", timeout=10).json()
        assert [job["id"] for job in listed["data"]] == [name]
        assert requests.get(f"{server.url}/jobs/{name}", timeout=10).ok
    # None was looked for in the wrong place.
    for number, pod in enumerate(pods):
        asked = [path for path, _ in stats(pod)["arrived"] if "/g" in path]
        assert asked and not [p for p in asked if f"/g{1 - number}-" in p]


ASKED = {
    "jobs": "/jobs/{}",
    "openai": "/v1/jobs/{}/result",
    "hosted": "/v1/get_result?id={}",
    "samples": "/v1/samples/{}",
}


@pytest.mark.parametrize("path", ASKED.values(), ids=ASKED)
def test_jobs_of_a_pod_that_is_gone_are_unknown(gateway, path):
    server, pods = gateway
    url = path.format("g7-0123456789abcdef")
    answer = requests.get(server.url + url, timeout=10)
    own = requests.get(pods[0].url + url, timeout=10)
    assert answer.status_code == own.status_code == 404
    assert answer.json() == own.json()
    # One that is only away comes back.
    answer = requests.get(server.url + path.format("g2-0123456789abcdef"), timeout=10)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "The server cannot be reached at the moment." in answer.text


def test_a_job_that_cannot_be_cancelled_any_more_is_unknown(gateway):
    answer = requests.delete(f"{gateway[0].url}/v1/jobs/g7-0123456789abcdef")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "job_not_found"


def sent(server, method, target, **headers):
    """The answer to a request of which ``requests`` would make another."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return exchange(server, ("\r\n".join(lines) + "\r\n\r\n").encode())


LONG = "x" * 20_000


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/v1/flux-dev", {"X-Large": LONG}, 400),
        ("GET", f"/{LONG}", {}, 400),
        ("GET", "/%zz", {}, 400),
        ("TRACE", "/v1/models", {}, 405),
        ("POST", "/sdapi/v1/txt2img", {"Content-Length": 66 << 20}, 413),
        ("GET", "/metrics", {}, 404),
    ],
    ids=["large header", "long line", "malformed", "method", "body", "metrics"],
)
def test_what_the_gateway_itself_refuses_is_json(
    gateway, method, target, headers, status
):
    answer = sent(gateway[0], method, target, **headers)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert json.loads(answer.body).keys() & {"error", "detail"}


def policies(app):
    """What may go out of the pods of ``app``, and come in, as NetworkPolicies say."""
    for thing in read(FOLDER / "base" / "network.yaml"):
        if thing["spec"]["podSelector"].get("matchLabels", {"app": app})["app"] == app:
            yield thing["spec"]


def test_the_file_server_reaches_a_bucket():
    out = [rule for spec in policies("files") for rule in spec.get("egress", ())]
    assert {"ports": [{"port": 443}]} in out
    # Each rule that is written counts.
    for thing in read(FOLDER / "base" / "network.yaml"):
        assert ("egress" in thing["spec"]) <= ("Egress" in thing["spec"]["policyTypes"])
