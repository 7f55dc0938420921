"""The built-in suites: what `run --suite NAME` covers."""

from __future__ import annotations

from registry import SUITES, Suite

SUITES.add(
    Suite(
        name="smoke",
        title="Does everything work: generated data, three defenses, a few minutes on 2 CPU cores.",
        datasets=("phantom2", "phantomseg"),
        defenses=("Undefended", "Madry2018PGDAT", "JPEG"),
        protocols=("clean", "standard"),
        n_samples=32,
    )
)
SUITES.add(
    Suite(
        name="lite",
        title="The real data sets that are small enough for a CPU, with all their test samples.",
        datasets=("breastmnist", "pneumoniamnist", "retinamnist", "pathmnist_subset", "msd_hippocampus"),
        protocols=("clean", "standard"),
    )
)
SUITES.add(
    Suite(
        name="full",
        title="Every data set, defense and protocol of the registry; what cannot run here is listed with its remedy.",
        datasets=("*",),
        protocols=("*",),
    )
)
