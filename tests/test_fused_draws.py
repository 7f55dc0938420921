"""One kernel of a GPU draws what the passes of torch draw; without a GPU it runs in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from attacks.draws import KeyedRandom, tried
from registry import ROOT

INTERPRETED = """
import torch
from attacks.draws import KeyedRandom
from attacks.fused_draws import fused_draws
keys = KeyedRandom(seed=3, stream=1).keys(torch.arange(5) + 40, 1 << 41)
for normal, expected in ((False, KeyedRandom.uniform), (True, KeyedRandom.normal)):
    found = fused_draws(keys, 1500, 2, normal=normal)  # a whole block of numbers, and part of one
    print(float((found - expected(keys, (1500,), 2)).abs().max()))
"""


def test_the_kernel_draws_the_same_numbers_in_the_interpreter():
    pytest.importorskip("triton", reason="Triton comes with torch's builds for CUDA")
    run = [sys.executable, "-c", INTERPRETED]
    done = subprocess.run(
        run, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=True
    )
    uniform, normal = map(float, done.stdout.split())
    assert uniform == 0
    assert normal < 1e-6


def passes(keys, count, ordinal, *, normal):
    draw = KeyedRandom.normal if normal else KeyedRandom.uniform
    return draw(keys, (count,), ordinal)


def one_draw_for_all(keys, count, ordinal, *, normal):
    return passes(keys, count, 0, normal=normal)


def without_a_compiler(keys, count, ordinal, *, normal):
    raise RuntimeError("Failed to find C compiler")


@pytest.mark.parametrize(("kernel", "said"), [(one_draw_for_all, "other numbers"), (without_a_compiler, "C compiler")])
def test_a_kernel_that_fails_its_trial_is_not_used(kernel, said, caplog):
    assert tried(kernel, torch.device("cpu")) is None
    assert said in caplog.text


def test_a_kernel_that_passes_its_trial_is_used(caplog):
    assert tried(passes, torch.device("cpu")) is passes
    assert not caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_what_a_cpu_draws():
    rng = KeyedRandom(seed=3)
    ids = torch.arange(70)
    for draw, tolerance in ((rng.uniform, 0), (rng.normal, 1e-5)):
        on_gpu, on_cpu = draw(rng.keys(ids.cuda(), 5), (3, 30, 30), 1), draw(rng.keys(ids, 5), (3, 30, 30), 1)
        assert (on_gpu.cpu() - on_cpu).abs().max() <= tolerance
