"""Ways to a gradient: the defense's own, through stand-ins, before a saturated output, or of another model.

A flag says that *a* gradient attack failed. Which one that is, is a value here: a view. Probes judge a view; the
escalation looks for one through which attacks work.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.prepare import LOW_TOLERANCE, prepare
from attacks.soundness.hidden_paths import bypass_stages, declare_stages, has_stages, inner_logits, inner_network
from attacks.soundness.learned_twin import learned_prefix
from attacks.victim import Access, ModelVictim, Spent
from datasets.batch import Batch
from datasets.tasks.base import model_outputs
from registry import CellFacts, Member, Need, Randomness

TRUE = "true gradient"
"""Name of the view that every defense has: its own gradient."""
BPDA = "BPDA"
"""Name of the view through stand-ins: declared ones, and the identity for stages found to hide their gradient."""
IDENTITY = "identity BPDA"
"""Name of the view through the identity in the place of declared stand-ins that are another map."""
LEARNED = "learned BPDA"
"""Name of the view through a map fitted to what the model does before its first trained layer."""
INNER = "inner logits"
"""Name of the view before the stages behind the logits."""
ATTACKS = {"apgd": "attacks.apgd:APGD", "mim": "attacks.momentum:MIM"}
"""Gradient attacks through a view."""
MOST_TARGETS = 9
"""Classes that a targeted attack aims at, as the standard ensemble does."""
BARE = "inner network"
"""Name of the view of the network inside of a wrapper, from which attacks transfer."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One way to a gradient of a defense."""

    name: str
    """For people, e.g. "true gradient", "BPDA", "twin"."""
    access: Access
    """The victim, and through whom it is searched."""
    source: str = "victim"
    """Whose gradient is followed, see `registry.Member.source`."""
    backward: str = "true"
    """"true", or "bpda"."""
    eot_samples: int = 1
    """Draws averaged in each gradient."""

    @property
    def gradient_of(self) -> ModelVictim:
        """The model whose gradient is followed."""
        return self.access.source(self.source)

    @property
    def transfers(self) -> bool:
        """Whether the gradient is another model's, which the victim need not follow."""
        return self.source not in ("victim", "exact")

    @property
    def owns_slope(self) -> bool:
        """Whether its gradient claims to be that of the outputs themselves, and not of what stands in for a stage."""
        return self.backward == "true" and self.name != LEARNED

    def members(self, facts: CellFacts, objectives: tuple[str, ...], steps: int, restarts: int) -> tuple[Member, ...]:
        """Returns APGD through this view on every objective, as members of an ensemble, and of noise momentum, too.

        One lucky draw shortens all later steps of APGD; momentum steps have one length.

        Args:
            facts: What the cell is.
            objectives: Names of objectives; a targeted one aims at another class in each run.
            steps: Gradient steps of a run.
            restarts: Runs on each objective; a targeted one has as many as there are targets, at most 9.
        """
        members = []
        for objective in objectives:
            runs = min(MOST_TARGETS, facts.n_classes - 1) if objective.startswith("targeted") else restarts
            draws = {"eot_samples": self.eot_samples} if self.eot_samples > 1 else {}
            members.append(self._member("apgd", objective, {"steps": steps, "restarts": runs} | draws))
            if facts.randomness is not Randomness.NONE:
                goals = runs if objective.startswith("targeted") else 1
                options = {"steps": steps, "step_size": 0.1, "decay": 0.9, "restarts": goals} | draws
                members.append(self._member("mim", objective, options))
        return tuple(members)

    def _member(self, name: str, objective: str, options: dict[str, object]) -> Member:
        return Member(
            name=f"{name}-{objective}, {self.name}",
            attack=ATTACKS[name],
            options=options,
            objective=objective,
            source=self.source,
            backward=self.backward,
        )


def objectives_of(facts: CellFacts, members: tuple[Member, ...]) -> tuple[str, ...]:
    """Returns what fresh gradient attacks ascend: margins for labels, otherwise what the ensemble spends most steps on.

    Graded scores never stop early, so that one objective costs as much as the main run's; the first of equals serves.
    Of label maps that is what Auto-PGD spends them on: plain steps through stand-ins only open the way.
    """
    if facts.task == "classification":
        if facts.multi_label:
            return ("margin", "cross-entropy")
        return ("margin", "targeted-margin") if facts.n_classes > 2 else ("margin",)
    own = [m for m in members if m.source == "victim" and m.attack == ATTACKS["apgd"] and "steps" in m.options]
    return (max(own, key=lambda member: member.options["steps"]).objective,) if own else ("margin",)


def private(access: Access) -> Access:
    """Returns an access to copies of all models, so that probes leave no state behind; calls are counted apart."""
    spent, copies = Spent(), {}

    def own(victim: ModelVictim) -> ModelVictim:
        if id(victim.model) not in copies:
            copies[id(victim.model)] = copy.deepcopy(victim.model)
        return with_model(victim, copies[id(victim.model)], spent)

    judge = own(access.victim)
    search = judge if access.search is access.victim else own(access.search)
    exact = None if access.exact is None else judge if access.exact is access.victim else own(access.exact)
    surrogates = {name: own(victim) for name, victim in access.surrogates.items()}
    return replace(access, victim=judge, search=search, exact=exact, surrogates=surrogates)


def with_model(victim: ModelVictim, model: nn.Module, spent: Spent | None = None) -> ModelVictim:
    """Returns a victim with the same slots and draws around another module."""
    other = copy.copy(victim)
    other.model = model
    if spent is not None:
        other.spent = spent
    return other


def first_view(access: Access, facts: CellFacts, eot_samples: int = 1) -> View:
    """Returns the gradient that a protocol follows: the true one, or BPDA where the entry declares stages for it.

    Of 0/1 scores it is taken in full precision: the main run may have searched a rounded copy, and what that hides
    shows in nothing that searches the same one.
    """
    source = "victim" if facts.graded else "exact"
    if facts.hidden_stages:
        return View(name=BPDA, access=access, source=source, backward="bpda", eot_samples=eot_samples)
    return View(name=TRUE, access=access, source=source, eot_samples=eot_samples)


def all_views(access: Access, some: Batch, eot_samples: int = 1, own: str = "victim") -> tuple[View, ...]:
    """Returns every way to a gradient that can be found without training a network, each through a model of its own.

    Args:
        access: Copies that may be changed.
        some: Samples on which the model is watched.
        eot_samples: Draws averaged in each gradient.
        own: Source of the defense's own gradient, "victim" or "exact".
    """
    model = copy.deepcopy(access.victim.model)
    declare_stages(model, some)
    backward = "bpda" if has_stages(model) else "true"
    views = [View(name=TRUE, access=access, source=own, eot_samples=eot_samples)]
    if backward == "bpda":
        through = replace(access, search=_searched(access.victim, model, some, own), exact=None)
        views.append(View(name=BPDA, access=through, source=own, backward=backward, eot_samples=eot_samples))
        plain = copy.deepcopy(model)
        if bypass_stages(plain, some):
            around = replace(access, search=_searched(access.victim, plain, some, own), exact=None)
            views.append(View(name=IDENTITY, access=around, source=own, backward=backward, eot_samples=eot_samples))
    learned = learned_prefix(copy.deepcopy(access.victim.model), some)
    if learned is not None:
        fitted = replace(access, search=with_model(access.victim, learned.eval()), exact=None)
        views.append(View(name=LEARNED, access=fitted, source=own, eot_samples=eot_samples))
    inner = inner_logits(model, some)
    if inner is not None:
        before = replace(access, search=_searched(access.victim, inner.eval(), some, own), exact=None)
        views.append(View(name=INNER, access=before, source=own, backward=backward, eot_samples=eot_samples))
    network = inner_network(model, some)
    if network is not None:
        bare = {str(Need.BARE): _searched(access.victim, network, some, own)}
        wrapped = replace(access, surrogates={**access.surrogates, **bare})
        views.append(View(name=BARE, access=wrapped, source=str(Need.BARE), eot_samples=eot_samples))
    scored = sorted(name for name in access.surrogates if name != Need.MECHANISM)
    new = [name for name in scored if network is None or not _alike(access.surrogates[name].model, network, some)]
    return (*views, *(View(name=str(name), access=access, source=str(name)) for name in new))


def _searched(victim: ModelVictim, model: nn.Module, some: Batch, own: str) -> ModelVictim:
    """Returns a victim around another model, or around a faster copy of it where there is one."""
    exact, drawing = own == "exact", lambda: victim.drawing(some.sample_ids)
    return with_model(victim, prepare(model, some.inputs, low_precision=not exact, drawing=drawing) or model)


def _alike(surrogate: nn.Module, network: nn.Module, some: Batch) -> bool:
    """Returns whether a surrogate is the network inside of the defense, or a faster copy of it: one view will do."""
    with torch.no_grad():
        one, other = model_outputs(surrogate, some), model_outputs(network, some)
    if not isinstance(one, Tensor) or one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= LOW_TOLERANCE * (other.max() - other.min()))
