import os
import subprocess
import sys

import pytest

from jkd import digest
from jkd.errors import UserError
from jkd.pretrained import hub

pytest.importorskip("huggingface_hub", reason="needs the extra jkd[hub]")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAY = "import sys; from jkd.pretrained import hub; print(hub.resolve(sys.argv[1]))"


@pytest.fixture
def cache(tmp_path):
    """A model in the Hub's cache as it lies on disk: blobs, a snapshot of links to them, and a branch."""
    model = tmp_path / "hub" / "models--org--name"
    snapshot = model / "snapshots" / COMMIT
    (model / "refs").mkdir(parents=True)
    (model / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"[PAD]\n"}.items():
        blob = digest.of_bytes(content)
        (model / "blobs" / blob).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return tmp_path


def _resolve(root, cache, address):
    """In a process of its own: the Hub's package reads the environment when it is imported."""
    environment = os.environ | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    environment.pop("HF_HUB_CACHE", None)
    return subprocess.run([sys.executable, "-c", SAY, address], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_an_address_is_found_in_the_cache_without_a_network(root, cache, revision):
    done = _resolve(root, cache, f"hf:org/name@{revision}")
    assert done.returncode == 0, done.stderr
    folder = cache / "hub" / "models--org--name" / "snapshots" / COMMIT
    assert done.stdout.strip() == str(folder)
    assert hub.digests(folder) == {
        name: digest.of_file(folder / name) for name in ("config.json", "model.safetensors", "vocab.txt")
    }


def test_what_is_not_in_the_cache_says_that_it_is_offline(root, cache):
    done = _resolve(root, cache, "hf:org/other@main")
    assert done.returncode != 0
    assert "hf:org/other@main cannot be had" in done.stderr and "HF_HUB_OFFLINE is set" in done.stderr


@pytest.mark.parametrize(
    "address",
    ["hf:org/name", "hf:@main", "hf:org/name@", "hf:a/b/c@main", "hf:../../x@main", "hf:org/name@../..", "hf:o/n@--x"],
)
def test_what_is_no_address_is_refused_with_an_example(address):
    with pytest.raises(UserError, match="Expected hf:ORG/NAME@REVISION"):
        hub.resolve(address)


def test_a_path_stays_what_it_is(tmp_path):
    assert hub.resolve(str(tmp_path)) == tmp_path and not hub.is_address(str(tmp_path))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'jkd\[hub\]'"):
        hub.resolve("hf:org/name@main")


def test_pickles_are_not_fetched(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **given: asked.update(given) or str(tmp_path)
    )
    assert hub.resolve("hf:org/name@v1.0") == tmp_path
    assert asked["revision"] == "v1.0"
    assert not any(pattern.endswith((".bin", ".pt", ".py", "*")) for pattern in asked["allow_patterns"])
