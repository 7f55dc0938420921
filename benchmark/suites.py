"""The built-in suites: what `run --suite NAME` covers."""

from __future__ import annotations

from registry import SUITES, Suite

CONTROLS = ("Control*",)
"""Defenses of known truth that test the benchmark itself; only their own suite runs them unasked."""

SUITES.add(
    Suite(
        name="smoke",
        title="Does everything work: generated data, three defenses, a few minutes on 2 CPU cores.",
        datasets=("phantom2", "phantomseg"),
        defenses=("Undefended", "Madry2018PGDAT", "MedianFilter"),
        protocols=("clean", "standard"),
        n_samples=12,
    )
)
SUITES.add(
    Suite(
        name="lite",
        title="The real data sets that are small enough for a CPU, with all their test samples.",
        datasets=("breastmnist", "pneumoniamnist", "retinamnist", "pathmnist_subset", "msd_hippocampus"),
        without=CONTROLS,
        protocols=("clean", "standard"),
    )
)
SUITES.add(
    Suite(
        name="full",
        title="Every data set, defense and protocol of the registry; what cannot run here is listed with its remedy.",
        datasets=("*",),
        without=CONTROLS,
        protocols=("*",),
    )
)
SUITES.add(
    Suite(
        name="controls",
        title="The benchmark's own exam: defenses whose truth is known, on generated data and on BreastMNIST.",
        datasets=("phantom2", "breastmnist"),
        defenses=(*CONTROLS, "Undefended", "Madry2018PGDAT", "Zhang2019TRADES", "Cohen2019Smoothing", "Gowal2018IBP"),
        protocols=("clean", "standard", "adaptive:bare"),
    )
)
