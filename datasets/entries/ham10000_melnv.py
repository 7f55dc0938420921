"""Dermatoscopic images of melanoma and nevus, balanced, split by lesion."""

from registry import DATASETS, DatasetSpec, HarmfulConfusion, Source

DATASETS.add(
    DatasetSpec(
        name="ham10000_melnv",
        title="HAM10000, nevus or melanoma",
        task="classification",
        input_shape=(3, 64, 64),
        class_names=("nevus", "melanoma"),
        splits={"train": 1392, "val": 201, "test": 407},
        license="CC BY-NC-SA 4.0",
        citation="Tschandl et al. 2018, The HAM10000 dataset, a large collection of multi-source dermatoscopic images "
        "of common pigmented skin lesions, Scientific Data 5:180161",
        reader="datasets.packed_npz:read",
        source=Source(
            filename="ham10000_melnv/ham10000_melnv_64.npz",
            md5="6346341a6e4c18c3e5ca7815d9b78f6b",
            sha256="2a8e7adb0ce89eb16cf155ea604b58bcb8f4a3fcdc4adab87dba7a7fa837468a",
            size=20345557,
            how="get it with: python -m benchmark data prepare ham10000_melnv, which asks for the originals. It is "
            "packed from the 1000 melanomas and 1000 nevi of HAM10000 (doi:10.7910/DVN/DBW86T) that the repository "
            "github.com/Criscraft/workshop_ki_hautkrebserkennung holds at 150 x 150, resized to 64 x 64 (Lanczos) and "
            "split by lesion_id within each class, numpy RandomState(0).",
        ),
        homepage="https://doi.org/10.7910/DVN/DBW86T",
        split_rule="by lesion within each class, 70/10/20 %",
        harmful_confusions=(HarmfulConfusion(true=1, predicted=0, title="melanoma called nevus"),),
        notes="For non-commercial use; some publishers state CC BY-NC 4.0. Classes are balanced, as in no clinic; "
        "images were squeezed to a square; two training images are identical. Copies of HAM10000 that are split by "
        "image share lesions between splits.",
    )
)
