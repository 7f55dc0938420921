from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Meng2017MagNet",
        summary="A small autoencoder, trained on noisy clean images, reforms every input.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="MagNet: A Two-Pronged Defense against Adversarial Examples",
            authors="Meng and Chen",
            year=2017,
            url="https://arxiv.org/abs/1705.09064",
            venue="CCS",
        ),
        tasks=("classification",),
        build="defenses.purifiers.magnet:build",
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.reformer:train",
            options={"epochs": 40, "batch_size": 32, "lr": 5e-3, "weight_decay": 0.0},
        ),
        departures="The reformer alone: no detector rejects images, and there is one autoencoder, not a random "
        "choice among several. 16 filters with ReLU in place of 3 with sigmoid; AdamW with a one-cycle schedule. The "
        "classifier never saw reconstructed images: on BreastMNIST its clean score lies under the majority's share of "
        "73.1 %.",
    )
)
