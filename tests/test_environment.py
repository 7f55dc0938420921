"""Devices and provenance: what is asked for, what is here, what a record says of it."""

from __future__ import annotations

import subprocess

import pytest

from benchmark import environment
from benchmark.environment import package_versions, provenance, resolve_device
from registry.errors import DeviceError


@pytest.mark.parametrize(
    ("asked", "cuda_devices", "device"),
    [
        ("cpu", 2, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 2, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_a_device_that_is_here(monkeypatch, asked, cuda_devices, device):
    monkeypatch.setattr(environment, "cuda_devices", lambda: cuda_devices)
    assert resolve_device(asked) == device


@pytest.mark.parametrize(
    ("asked", "cuda_devices", "message"),
    [
        ("cuda:0", 0, "asked for cuda:0, this machine has no CUDA device; use --device cpu"),
        ("cuda:2", 2, "asked for cuda:2, this machine has only 2 (cuda:0 to cuda:1); use --device cuda:0"),
        ("gpu", 2, "--device is auto, cpu or cuda:K, got 'gpu'"),
        ("cuda:x", 2, "--device is auto, cpu or cuda:K, got 'cuda:x'"),
    ],
)
def test_a_device_that_is_not_here(monkeypatch, asked, cuda_devices, message):
    monkeypatch.setattr(environment, "cuda_devices", lambda: cuda_devices)
    with pytest.raises(DeviceError) as caught:
        resolve_device(asked)
    assert str(caught.value) == message


def test_provenance_names_what_takes_part_in_a_number():
    source = provenance("cpu")
    assert source.device.startswith("cpu (") and source.started_at.endswith("+00:00")
    assert source.packages == package_versions() and {"torch", "numpy", "torchattacks"} <= set(source.packages)


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_a_machine_without_git_has_no_commit(monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(environment.subprocess, "run", fail)
    environment.checkout.cache_clear()
    assert environment.checkout() == (None, False)
    environment.checkout.cache_clear()


def test_records_weights_and_texts_are_no_changes_of_the_code(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path)

    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    for name in ("attacks/apgd.py", "results/records/a.json", "defenses/weights/a.json", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    git("init")
    git("add", "-A")
    git("commit", "-m", "all")
    for name, dirty in (("results/records/a.json", False), ("README.md", False), ("attacks/apgd.py", True)):
        (tmp_path / name).write_text("after")
        environment.checkout.cache_clear()
        assert environment.checkout()[1] is dirty
    environment.checkout.cache_clear()
