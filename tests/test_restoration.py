"""Quality of restored images: by hand, over which images, only where a model shows them, and on the pages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import benchmark.summary
from attacks.victim import ModelVictim
from benchmark.record_text import describe
from benchmark.restoration import ROUNDING_MSE, image_quality, with_restored_images
from benchmark.summary import Summary
from datasets.tasks.classification import Classification
from defenses.stages import Preprocessed
from registry import Member, Norm, Randomness
from reports.site import build_site
from results.record import Estimate
from tests.example_records import example_budget, example_record
from tests.synthetic_records import make_defense, make_record, write_store
from tests.test_recipes import toy_dataset
from tests.toys import attack, batch_for, cnn, images, protocol_of

ONE_PIXEL = Member(name="one-pixel", attack="attacks.one_pixel:OnePixel", objective="margin")


class Darker(nn.Module):
    """Takes 0.1 away."""

    def forward(self, inputs):
        return inputs - 0.1


class Noisy(Preprocessed):
    """Adds noise before the network, and shows it."""

    def __init__(self, net):
        super().__init__(nn.Identity(), net)

    def restored(self, inputs):
        return inputs + 0.1 * torch.randn_like(inputs)

    def forward(self, inputs):
        return self.net(self.restored(inputs))


def test_psnr_and_mse_by_hand():
    clean = np.full((3, 1, 16, 16), 0.5)
    changed = clean.copy()
    changed[0] += 0.1
    changed[1, 0, 3, 4] = 1.0
    found = image_quality(clean, changed)
    assert found["mse"] == pytest.approx([0.01, 0.25 / 256, 0])
    assert found["psnr"][:2] == pytest.approx([20, 10 * math.log10(256 / 0.25)])
    assert found["psnr"][2] == pytest.approx(10 * math.log10(1 / ROUNDING_MSE)) == pytest.approx(58.92, abs=0.01)
    assert found["ssim"][2] == pytest.approx(1) and found["ssim"][1] < 0.99


def test_values_beyond_the_screen_are_cut_off_and_small_images_have_no_ssim():
    clean = np.ones((1, 3, 8, 8))
    found = image_quality(clean, clean + 7)
    assert found["mse"] == pytest.approx([0])
    assert "ssim" not in found


def summarised(model, inputs, monkeypatch, *, randomness=Randomness.NONE, eps=(1.0, 3.0)):
    monkeypatch.setattr(benchmark.summary, "CORPUS_RESAMPLES", 2)
    batch = batch_for(model, inputs)
    outcome = attack(model, batch, protocol_of(ONE_PIXEL, eps=eps, norm=Norm.L0), randomness=randomness)
    victim = ModelVictim(model, Classification(2), slots=8, randomness=randomness)
    summary = Summary(victim, batch, toy_dataset().spec, outcome)
    return summary, victim, batch, outcome


def test_clean_quality_is_over_all_images_and_attacked_quality_over_the_broken_ones(monkeypatch):
    model = Preprocessed(Darker(), cnn(2)).eval()
    summary, victim, batch, outcome = summarised(model, images(12, shape=(1, 8, 8)), monkeypatch)
    clean, budgets = with_restored_images(summary, model, victim, batch, outcome)
    assert clean["restored_mse"].value == pytest.approx(0.01, rel=1e-4) and clean["restored_mse"].n == 12
    assert clean["clean"] == summary.clean["clean"]
    seen = 0
    for result, found in zip(budgets, outcome.budgets, strict=True):
        broken = int((found.points != batch.inputs).flatten(1).any(1).sum())
        seen += broken
        assert broken == round(12 * (1 - result.metrics["robust"].value))
        if broken:
            assert result.metrics["restored_psnr"].n == result.metrics["attacked_psnr"].n == broken
            assert result.metrics["restored_psnr"].value < 20.1  # everything is darker, and a pixel changed
            assert result.metrics["attacked_psnr"].value > 10
        else:
            assert "restored_psnr" not in result.metrics
    assert seen > 0


def test_a_model_that_shows_no_images_has_no_such_metrics(monkeypatch):
    model = cnn(2)
    summary, victim, batch, outcome = summarised(model, images(4, shape=(1, 8, 8)), monkeypatch, eps=(1.0,))
    assert with_restored_images(summary, model, victim, batch, outcome) == (summary.clean, summary.budgets)


def test_a_model_that_resizes_its_inputs_has_no_such_metrics(monkeypatch):
    model = Preprocessed(nn.ZeroPad2d(1), cnn(2)).eval()
    summary, victim, batch, outcome = summarised(model, images(4, shape=(1, 8, 8)), monkeypatch, eps=(1.0,))
    assert with_restored_images(summary, model, victim, batch, outcome) == (summary.clean, summary.budgets)


def test_noise_is_the_same_every_time(monkeypatch):
    model = Noisy(cnn(2)).eval()
    inputs = images(4, shape=(1, 8, 8))
    summary, victim, batch, outcome = summarised(model, inputs, monkeypatch, randomness=Randomness.SAMPLE, eps=(1.0,))
    first, second = (with_restored_images(summary, model, victim, batch, outcome)[0] for _ in range(2))
    assert first == second
    assert first["restored_mse"].value == pytest.approx(0.01, rel=0.3)


def quality(value, n):
    return Estimate(value=value, low=value - 1, high=value + 1, n=n)


def test_show_prints_decibels_as_decibels():
    text = describe(example_record(clean={"restored_psnr": quality(31.25, 8)}, budgets=(example_budget(),)))
    assert "restored_psnr  31.25  [30.25, 32.25]  n = 8" in text


def test_board_and_page_show_it_beside_the_score(tmp_path):
    made = make_record(defense=make_defense("JPEG"))
    clean = made.record.clean | {"restored_psnr": quality(33.25, 156), "restored_mse": quality(0.0123, 156)}
    first, *others = made.record.budgets
    attacked = {"restored_psnr": quality(21.75, 17), "attacked_psnr": quality(44.5, 17)}
    budgets = (replace(first, metrics=first.metrics | attacked), *others)
    record = replace(made.record, clean=clean, budgets=budgets)
    store = write_store(tmp_path / "records", [replace(made, record=record), make_record()])
    build_site(store, tmp_path / "site")
    page = (tmp_path / "site" / "defenses" / "JPEG.html").read_text()
    board = (tmp_path / "site" / "boards" / "breastmnist-linf-1-255.html").read_text()
    for text in (page, board):
        assert "Restored images" in text
        assert "33.2\u202fdB" in text and "0.01230" in text and "21.8\u202fdB" in text and "44.5\u202fdB" in text
        assert '<td class="num" data-value="17">17</td>' in text
    section = board.split("<h2>Restored images</h2>")[1].split("</section>")[0]
    assert "Clean accuracy" in section and "Robust accuracy" in section and "Undefended" not in section
    assert "restored_psnr" not in board
    other = (tmp_path / "site" / "defenses" / "Undefended.html").read_text()
    assert "Restored images" not in other
