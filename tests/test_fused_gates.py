"""One kernel of a GPU opens gates as the passes of torch do; without a GPU it runs in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from attacks.hardware import triton_kernel
from defenses.noise.attention_noise import LUMAN, NUMAN
from defenses.noise.gates import gate_by_passes, gate_for, tried
from registry import ROOT

INTERPRETED = """
import torch
from defenses.noise.fused_gates import fused_gate
from defenses.noise.gates import gate_by_passes, tried
assert tried(fused_gate, torch.device("cpu")) is fused_gate
inputs, weights, channel = torch.rand(2, 1, 3, 3), torch.rand(2, 1, 3, 3), torch.rand(2, 1)
options = {"sigma": 0.0, "learned": True}
parts = inputs, weights, channel, None, (torch.ones(1), torch.ones(1))
print(float((fused_gate(*parts, **options) - gate_by_passes(*parts, **options)).abs().max()))
"""


def test_the_kernel_opens_gates_alike_in_the_interpreter():
    """Noise of either kind and its mean, features and gradients: all by the trial; gates without noise besides."""
    pytest.importorskip("triton", reason="Triton comes with torch's builds for CUDA")
    run = [sys.executable, "-c", INTERPRETED]
    done = subprocess.run(
        run, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1e-6


def test_a_kernel_that_cannot_be_had_is_none_and_is_said(caplog):
    pytest.importorskip("triton", reason="Triton comes with torch's builds for CUDA")
    assert callable(triton_kernel("defenses.noise.fused_gates:fused_gate"))
    assert not caplog.text
    assert triton_kernel("defenses.noise.fused_gates:no_such_kernel") is None
    assert "torch computes it more slowly" in caplog.text


def without_cubes(*parts, learned, **options):
    return gate_by_passes(*parts, learned=False, **options)


def with_another_slope(inputs, *parts, **options):
    gated = gate_by_passes(inputs, *parts, **options)
    return gated + 0.01 * (inputs - inputs.detach())


def without_a_compiler(*parts, **options):
    raise RuntimeError("Failed to find C compiler")


@pytest.mark.parametrize(
    ("kernel", "said"),
    [(without_cubes, "otherwise"), (with_another_slope, "otherwise"), (without_a_compiler, "C compiler")],
)
def test_a_kernel_that_fails_its_trial_is_not_used(kernel, said, caplog):
    assert tried(kernel, torch.device("cpu")) is None
    assert said in caplog.text


def test_a_kernel_that_passes_its_trial_is_used(caplog):
    assert tried(gate_by_passes, torch.device("cpu")) is gate_by_passes
    assert not caplog.text


def test_a_cpu_takes_the_passes_of_torch():
    assert gate_for(torch.rand(2, 3, 4, 4), (torch.ones(1), torch.ones(1))) is gate_by_passes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [NUMAN, LUMAN])
def test_a_gpu_takes_the_kernel_except_where_the_scales_are_trained(make):
    gate, inputs = make(3).cuda(), torch.rand(2, 3, 4, 4, device="cuda")
    trains_scales = gate_for(inputs, gate._omegas()) is gate_by_passes
    assert trains_scales == (make is LUMAN)
    assert gate_for(inputs, gate.requires_grad_(False)._omegas()) is not gate_by_passes
