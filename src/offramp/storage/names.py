"""Names of files that runs and bundles have in common."""

POLICY = "policy.json"
"""A policy, or a menu."""


def lacking(file: str, number: int | str) -> str:
    """The file for samples that lack an input, by its number: `policy-without-1.json`.

    `*` as the number gives a pattern for all inputs.
    """
    stem, _, ending = file.rpartition(".")
    return f"{stem}-without-{number}.{ending}"


def outputs_of(split: str) -> str:
    """File of the outputs of a split."""
    return f"outputs/{split}.npz"
