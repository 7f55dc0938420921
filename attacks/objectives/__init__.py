"""Objectives: what attacks ascend, by the names the field gives them."""

from attacks.objectives.base import OBJECTIVES, Aimed, objective_for

__all__ = ["OBJECTIVES", "Aimed", "objective_for"]
