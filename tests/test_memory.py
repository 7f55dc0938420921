"""A device that runs out of memory: the cell begins again with half of the slots, and the record says so."""

import pytest
import torch

from attacks.victim import ModelVictim
from benchmark import evaluate
from registry import Member
from tests.toys import attack, batch_for, images, linear, protocol_of

FITS = 32
"""Slots for which the memory of these tests is enough."""


@pytest.fixture
def small_memory(monkeypatch):
    """Lets every query of more slots than fit fail as a GPU does."""
    answer, tried = ModelVictim.answer, []

    def limited(self, *args, **kwargs):
        tried.append(self.slots)
        if self.slots > FITS:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(self, *args, **kwargs)

    monkeypatch.setattr(ModelVictim, "answer", limited)
    return tried


def test_the_slots_are_halved_until_they_fit(small_memory):
    model = linear(3, shape=(1, 8, 8))
    batch = batch_for(model, images(6, shape=(1, 8, 8)))
    data = (batch.inputs, batch.targets["label"])
    record = evaluate(model, data, task="classification", protocol="clean")
    assert list(dict.fromkeys(small_memory))[:3] == [128, 64, 32]
    assert record.provenance.device.endswith(f"{FITS} rows, searched itself")
    assert record.failure is None


def test_an_attack_that_runs_out_of_memory_is_not_held_against_its_samples(monkeypatch):
    def search(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("attacks.gradient.PGD.ask", search)
    model, pgd = linear(3), Member(name="pgd", attack="attacks.gradient:PGD", options={"steps": 2})
    with pytest.raises(torch.OutOfMemoryError):
        attack(
            model,
            batch_for(model, images(4)),
            protocol_of(pgd),
        )
