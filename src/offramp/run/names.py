"""Names of files and folders in a run folder."""

PLAN = "plan.yaml"
METRICS = "metrics.json"
ENVIRONMENT = "environment.json"
HISTORY = "history.json"
"""Epochs of a finetuned backbone."""
POLICY = "policy.json"
WORK = "work"
"""Folder of the cache and of the training state; may be deleted once the run is done."""
EXTENSION = "extension.yaml"
"""In the work folder, the plan of an unfinished extension, for listings."""


def lacking(file: str, number: int | str) -> str:
    """The file for samples that lack an input, by its number: `policy-without-1.json`.

    `*` as the number gives a pattern for all inputs.
    """
    stem, _, ending = file.rpartition(".")
    return f"{stem}-without-{number}.{ending}"


def outputs_of(split: str) -> str:
    """File of the outputs of a split."""
    return f"outputs/{split}.npz"
