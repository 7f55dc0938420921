from registry import DEFENSES, DefenseEntry, Family, Paper, Recipe

DEFENSES.add(
    DefenseEntry(
        name="Tsai2025DenoisingAE",
        summary="An autoencoder trained to take out impulse noise, in front of the frozen undefended model.",
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
            options={"epochs": 40, "batch_size": 32, "lr": 3e-3, "weight_decay": 0.0},
            per_dataset={"pneumoniamnist*": {"epochs": 12}, "pathmnist*": {"epochs": 12}, "phantom*": {"epochs": 10}},
        ),
        departures=(
            "Only the abstract and the attack were readable: layers, skip connections, noise densities, loss and "
            "schedule are ours. The classifier stays as it is; a form whose classifier is fine-tuned on restored "
            "images is not here. It predicts a residual and does not cut it off, in place of a sigmoid. AdamW without "
            "weight decay, batches of 32, with a one-cycle schedule. The authors judge by the quality of the image "
            "restored after a one-pixel attack on coloured and grey sets of MedMNIST (Derma, Path, OCT, Chest), and "
            "leave dense attacks such as PGD out of their scope: a rank under Linf says what the method was not made "
            "for. The paper claims good image quality on all of its data sets; no number was readable, so no claim is "
            "entered."
        ),
    )
)
