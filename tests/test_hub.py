"""Fetching from the model hub, against a small server on loopback that speaks as the hub does."""

import dataclasses
import hashlib
import http.server
import runpy
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import jaxai
from jaxai.models import VGG, hub, zoo

COMMIT = "c" * 40
GOLDENS = Path(__file__).parent / "goldens"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves `content` as owner/REPO/model.safetensors; the repository's name says what goes wrong."""

    content = b""
    requests: list[str] = []
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def log_message(self, *_):
        pass

    def answer(self, body):
        _, repository, *rest = self.path.lstrip("/").split("/")
        fault = repository.split(".")[-1]
        resolve = rest[:1] == ["resolve"] and rest[-1] == "model.safetensors"
        # The library may also ask for things of its own.
        if resolve:
            type(self).requests.append(f"{self.command} {self.path}")
        if not resolve or fault == "missing":
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        digest = hashlib.sha256(self.content).hexdigest()
        etag = {"wrong": "0" * 64, "unsigned": "1" * 40}.get(fault, digest)
        sent = self.content[: len(self.content) // 2] if fault == "short" else self.content
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(self.content)))
        self.send_header("ETag", f'"{COMMIT}"')
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if body:
            self.wfile.write(sent)


@pytest.fixture(scope="module")
def server():
    """A hub on loopback, and a fresh huggingface_hub that believes in it."""
    pytest.importorskip("huggingface_hub")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.server_address[1]}")
            patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            patch.setenv("NO_PROXY", "127.0.0.1")
            # The library reads its settings when it is imported.
            for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
                patch.delitem(sys.modules, name)
            yield Hub
            for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
                del sys.modules[name]
        listening.shutdown()
        thread.join()


@pytest.fixture
def served(server):
    server.content, server.requests = np.arange(1000).tobytes(), []
    return server


def test_a_file_is_fetched_at_the_commit_whose_digest_was_reported(served, tmp_path):
    path = hub.fetch("timm/vgg16.good", "model.safetensors", tmp_path, most=10_000)
    assert path.read_bytes() == served.content and path.is_relative_to(tmp_path)
    assert served.requests[0] == "HEAD /timm/vgg16.good/resolve/main/model.safetensors"
    assert served.requests[-1] == f"GET /timm/vgg16.good/resolve/{COMMIT}/model.safetensors"


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("wrong", ValueError, "is damaged: the hub reports SHA-256 00000"),
        ("unsigned", ValueError, "reports no SHA-256 for model.safetensors"),
        ("short", ConnectionError, "was not delivered whole"),
        ("missing", ConnectionError, "cannot reach timm/vgg16.missing"),
    ],
)
def test_what_can_go_wrong(served, tmp_path, fault, kind, message):
    with pytest.raises(kind, match=message) as caught:
        hub.fetch(f"timm/vgg16.{fault}", "model.safetensors", tmp_path, most=10_000)
    assert "\n" not in str(caught.value)


def test_a_size_that_no_such_file_has(served, tmp_path):
    with pytest.raises(ValueError, match="has 8000 bytes; expected at most 7999"):
        hub.fetch("timm/vgg16.good", "model.safetensors", tmp_path, most=7999)
    assert [request.split()[0] for request in served.requests] == ["HEAD"], "nothing was downloaded"


def test_what_the_hub_says_is_not_shown_raw(served, tmp_path, monkeypatch):
    import huggingface_hub

    answer = huggingface_hub.get_hf_file_metadata(
        huggingface_hub.hf_hub_url("timm/vgg16.good", "model.safetensors")
    )
    evil = dataclasses.replace(answer, etag="\x1b[31m" * 999)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: evil)
    with pytest.raises(ValueError, match=r"reports no SHA-256 .*; got \?\[31m") as caught:
        hub.fetch("timm/vgg16.good", "model.safetensors", tmp_path, most=10_000)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_without_the_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r'pip install "jaxai-explain\[hub\]"'):
        hub.fetch("timm/vgg16.good", "model.safetensors", tmp_path, most=10_000)


def small_zoo(monkeypatch, fault):
    known = zoo.ZOO["vgg11_bn"]
    changed = {
        "make": partial(VGG, 11, classes=10, hidden=(8, 8)),
        "source": zoo.Hub(f"timm/vgg11_bn.{fault}", "vgg11_bn-6002323d.pth"),
    }
    monkeypatch.setitem(zoo.ZOO, "vgg11_bn", type(known)(**{**known.__dict__, **changed}))


@pytest.fixture
def weights(served):
    random_vgg = runpy.run_path(str(GOLDENS / "random_vgg.py"))["state_dict"]
    state = random_vgg(11, norm=True, dense=(8, 8, 10), seed=0)
    served.content = save(state)
    return state


def test_load_fetches_once_and_keeps_only_the_converted_file(served, weights, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
    small_zoo(monkeypatch, "good")
    net = jaxai.models.load("vgg11_bn")
    np.testing.assert_allclose(net.model.logits.kernel[...], weights["classifier.6.weight"].T)
    assert [path.name for path in tmp_path.iterdir()] == ["vgg11_bn.safetensors"]
    served.requests.clear()
    assert jaxai.models.load("vgg11_bn").digest == net.digest
    assert served.requests == []


def test_load_refuses_a_wrong_file_and_keeps_nothing(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
    small_zoo(monkeypatch, "wrong")
    with pytest.raises(ValueError, match="is damaged"):
        jaxai.models.load("vgg11_bn")
    assert list(tmp_path.iterdir()) == []


def test_load_without_a_hub_says_what_to_do(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXAI_CACHE", str(tmp_path))
    small_zoo(monkeypatch, "missing")
    with pytest.raises(FileNotFoundError, match="jaxai convert vgg11_bn-6002323d.pth --model vgg11_bn"):
        jaxai.models.load("vgg11_bn")


def test_a_dead_endpoint_is_one_line(server, monkeypatch, tmp_path):
    """A port that nobody listens on, as offline."""
    import huggingface_hub

    real = huggingface_hub.hf_hub_url
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *a: real(*a, endpoint="http://127.0.0.1:9"))
    with pytest.raises(ConnectionError, match="cannot reach timm/vgg16.good") as caught:
        hub.fetch("timm/vgg16.good", "model.safetensors", tmp_path, most=10_000)
    assert "\n" not in str(caught.value)
