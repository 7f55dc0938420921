"""What tests of minimal-norm attacks share: exact distances by other means, and a loop without engine and ball."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.draws import KeyedRandom
from attacks.objectives import objective_for
from attacks.stepped import Rows, SteppedAttack
from attacks.victim import ModelVictim
from datasets.batch import Batch
from datasets.tasks.classification import Classification
from registry import Norm
from tests.toys import Linear

NORMS = (Norm.LINF, Norm.L2, Norm.L1)
ORDERS = {Norm.LINF: torch.inf, Norm.L2: 2, Norm.L1: 1}


def norms_of(change: Tensor, norm: Norm) -> Tensor:
    """Returns the norm of each row."""
    return torch.linalg.vector_norm(change.flatten(1), ORDERS[norm], dim=1)


def nearest_size(norm: Norm, slope: Tensor, rise: float, low: Tensor, high: Tensor) -> float:
    """Returns the size of one row's smallest change with <slope, change> = rise in a box, by a solver of scipy."""
    slope, low, high = (part.double().numpy() for part in (slope, low, high))
    places, bounds = len(slope), list(zip(low, high, strict=True))
    if norm is Norm.L2:
        found = minimize(
            lambda z: z @ z,
            np.zeros(places),
            jac=lambda z: 2 * z,
            bounds=bounds,
            constraints={"type": "eq", "fun": lambda z: slope @ z - rise, "jac": lambda z: slope},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert found.success, found.message
        return float(np.sqrt(found.fun))
    eye = np.eye(places)  # |z_i| <= t_i, all t_i one number for Linf
    tops = -np.ones((places, 1)) if norm is Norm.LINF else -eye
    above = np.block([[eye, tops], [-eye, tops]])
    cost = np.concatenate([np.zeros(places), np.ones(tops.shape[1])])
    equal = np.concatenate([slope, np.zeros(tops.shape[1])])[None]
    bounds += [(0, None)] * tops.shape[1]
    found = linprog(cost, A_ub=above, b_ub=np.zeros(2 * places), A_eq=equal, b_eq=[rise], bounds=bounds)
    return float(found.fun) if found.status == 0 else float("inf")


def distances(model: Linear, batch: Batch, norm: Norm) -> Tensor:
    """Returns each sample's exact distance to another class of a linear model inside [0, 1]."""
    weight, label = model.weight.detach(), batch.targets["label"]
    logits = model(batch.inputs).detach()
    found = torch.full((len(batch),), torch.inf)
    for row, inputs in enumerate(batch.inputs.flatten(1)):
        true = int(label[row])
        for other in set(range(len(weight))) - {true}:
            gap = float(logits[row, true] - logits[row, other])
            size = nearest_size(norm, weight[other] - weight[true], gap, -inputs, 1 - inputs)
            found[row] = min(float(found[row]), size)
    return found


def closest(
    attack: SteppedAttack, model: nn.Module, batch: Batch, norm: Norm, eps: float, *, objective: str = "margin"
) -> Tensor:
    """Returns the size of each sample's closest adversarial, over all restarts; infinity where none was found."""
    task = Classification(model(batch.inputs[:1]).shape[1])
    victim, aim = ModelVictim(model, task, slots=len(batch)), objective_for(task, objective)
    radius = torch.full((1,) * batch.inputs.ndim, eps)
    found, rng = torch.full((len(batch),), torch.inf), KeyedRandom(seed=0)
    for restart in range(attack.restarts):
        number = torch.full((len(batch),), restart)
        aimed = aim.aim(victim.outputs(batch), batch, number) if hasattr(aim, "aim") else batch
        rows = Rows(
            batch=aimed,
            ball=Ball(norm=norm, originals=batch.inputs, eps=radius),
            begin=batch.inputs.clone(),
            restart=number,
            sample=torch.arange(len(batch)),
            step=torch.zeros_like(number),
            done=torch.zeros_like(number, dtype=torch.bool),
        )
        attack.start(rows, rng)
        while not rows.done.all():
            query = attack.ask(rows, rng)
            assert query.free
            assert 0 <= query.points.min() <= query.points.max() <= 1
            answer = victim.answer(aimed.with_inputs(query.points), aim, torch.zeros(len(batch)), gradient=True)
            rows.step = rows.step + 1
            wrong = (answer.score < 0.5) & ~rows.done
            found = torch.where(wrong, torch.minimum(found, norms_of(query.points - batch.inputs, norm)), found)
            attack.tell(rows, query, answer)
        assert int(rows.step.max()) <= attack.steps
    return found
