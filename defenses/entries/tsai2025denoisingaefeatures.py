from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Tsai2025DenoisingAEFeatures",
        summary="The denoising autoencoder, trained to keep the frozen model's last features beside the pixels.",
        family=Family.PURIFICATION,
        paper=Paper(
            title="Adversarial Defense for Medical Images",
            authors="Tsai et al.",
            year=2025,
            url="https://doi.org/10.3390/electronics14224384",
            venue="Electronics 14(22)",
        ),
        tasks=("classification",),
        build="defenses.purifiers.autoencoder:build",
        build_options={"width": 32},
        base="Undefended",
        recipe=Recipe(
            train="defenses.recipes.denoising:train",
            options={"epochs": 40, "batch_size": 32, "lr": 3e-3, "weight_decay": 0.0, "feature_weight": 0.1},
            per_dataset={"pneumoniamnist*": {"epochs": 12}, "pathmnist*": {"epochs": 12}, "phantom*": {"epochs": 10}},
        ),
        departures=(
            "Only the abstract and the attack were readable: layers, skip connections, noise densities, loss and "
            "schedule are ours. The classifier stays as it is; a form whose classifier is fine-tuned on restored "
            "images is not here. It predicts a residual and does not cut it off, in place of a sigmoid. AdamW without "
            "weight decay, batches of 32, with a one-cycle schedule. The paper claims good image quality on all of its "
            "data sets; no number was readable, so no claim is entered. A variant that the paper does not have: the "
            "features before the classifier's last layer are matched with weight 0.1, after Liao et al. 2018, "
            "arXiv:1712.02976, and the Siamese autoencoder of Shim and Jo 2025."
        ),
    )
)
