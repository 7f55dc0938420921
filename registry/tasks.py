"""The tasks, as people see them; their arithmetic lives in `datasets.tasks`."""

from __future__ import annotations

from registry.metric import MetricSpec, TaskSpec

BALANCED_ACCURACY = MetricSpec(
    name="balanced_accuracy", title="Balanced accuracy", description="Mean of the recalls of all classes."
)
AUROC = MetricSpec(
    name="auroc",
    title="AUROC",
    description="Area under the ROC curve; more than two classes: mean of one against the rest. No attack aims at it.",
    bound_under_attack=True,
)

REJECTED = MetricSpec(
    name="rejected",
    title="Rejected",
    description="Share of images that a detector rejects; of unchanged images its false-alarm rate.",
)

BUILT_IN_TASKS = (
    TaskSpec(
        name="classification",
        title="Classification",
        score="1 if the most likely class is the label, else 0; multi-label: the share of labels that are right, each "
        "weighted such that the mean is the balanced accuracy averaged over labels.",
        quality="accuracy",
        build="datasets.tasks.classification:build",
        metrics=(BALANCED_ACCURACY, AUROC, REJECTED),
    ),
    TaskSpec(
        name="segmentation",
        title="Segmentation",
        score="Mean foreground Dice of the image over the classes in its target.",
        quality="Dice",
        build="datasets.tasks.segmentation:build",
        metrics=(
            MetricSpec(name="voxel_dice", title="Dice of the whole set", description="Voxels of all images pooled."),
            MetricSpec(name="iou", title="IoU", description="Mean foreground intersection over union of the image."),
            MetricSpec(
                name="hd95",
                title="HD95",
                unit="px",
                higher_is_better=False,
                description="95th percentile of the surface distance, on the Dice-worst inputs.",
            ),
        ),
    ),
)
