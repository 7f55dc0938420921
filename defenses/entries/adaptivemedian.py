from registry import DEFENSES, DefenseEntry, Family, Paper

DEFENSES.add(
    DefenseEntry(
        name="AdaptiveMedian",
        summary="An adaptive median filter, up to 7 x 7, for impulses only, in front of the undefended model.",
        family=Family.INPUT_TRANSFORMATION,
        paper=Paper(
            title="Adaptive median filters: new algorithms and results",
            authors="Hwang and Haddad",
            year=1995,
            url="https://doi.org/10.1109/83.370679",
            venue="IEEE TIP",
        ),
        tasks=("classification", "segmentation"),
        build="defenses.filters:adaptive_median",
        build_options={"largest": 7},
        base="Undefended",
        departures="A filter against impulse noise, here used against attacks; where no size fits, the largest median.",
    )
)
