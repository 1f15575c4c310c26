"""The model card of a bundle: what it answers, what it costs, what it promises, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from offramp.bundle.manifest import BundleManifest
from offramp.policy import ExitPolicy, PolicyMenu


def model_card(manifest: BundleManifest, policies: Mapping[str, ExitPolicy | PolicyMenu]) -> str:
    """The README of a bundle.

    Args:
        manifest: Its manifest.
        policies: Its policies, by name of file.
    """
    parts = [
        f"# {manifest.about.get('name', 'A model with early exits')}",
        _what(manifest),
        _exits(manifest),
        _promises(policies),
        _parity(manifest),
        _origin(manifest.about),
        _use(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(manifest: BundleManifest) -> str:
    facts = manifest.facts
    reads = " and ".join(
        f"`{each.name}` ({'x'.join(map(str, each.shape))} {each.dtype}"
        f"{', ' + each.preprocess.kind if each.preprocess else ''})"
        for each in facts.inputs
    )
    answers = f"{facts.num_outputs} classes"
    if facts.task == "regression":
        answers = f"a value{f' ({facts.value_name})' if facts.value_name else ''}"
    exits = f"{len(facts.exits)} exits, of which the last is the whole network"
    return f"Reads {reads}; answers {answers} at {exits}."


def _exits(manifest: BundleManifest) -> str:
    facts = manifest.facts
    stages, branches = facts.flops(facts.names)
    measured = manifest.about.get("accuracy", {})
    times = manifest.times[0] if manifest.times else None
    ms = {each.file: each.median_ms for each in times.parts if each.batch == 1} if times else {}
    head = ["exit", "branch", "MFLOPs"]
    rows: list[list[str]] = []
    total = 0
    for name, each, stage, branch in zip(facts.names, facts.exits, stages, branches, strict=True):
        total += stage
        rows.append([name, each.branch or "the network's own", f"{(total + branch) / 1e6:.1f}"])
    if measured:
        head.append(str(manifest.about.get("measure", "accuracy")))
        for row in rows:
            row.append(str(measured.get(row[0], "")))
    if ms and times is not None:
        head.append("ms")
        for row in rows:
            row.append(f"{_path_ms(manifest, ms, row[0]):.2f}")
    table = _table(head, rows)
    note = "MFLOPs: a multiply-add counts 2; each exit with its own branch only."
    if times is not None:
        note += (
            f"\nMilliseconds: one sample, median, with {times.engine} in {times.precision} and "
            f"{times.threads} threads on {times.processor} ({times.cores} cores)."
        )
    return f"## Exits\n\n{table}\n\n{note}"


def _path_ms(manifest: BundleManifest, ms: Mapping[str, float], exit: str) -> float:
    cuts = (*manifest.facts.cuts, "final")
    last = cuts.index(exit)
    stages = [each for each in manifest.stages if not each.without and each.stage <= last]
    branch = [each for each in manifest.branches if each.exit == exit]
    return sum(ms[each.file] for each in (*stages, *branch))


def _promises(policies: Mapping[str, ExitPolicy | PolicyMenu]) -> str:
    if not policies:
        return ""
    lines = [f"- `{name}`: {line}" for name, p in policies.items() for line in str(p).splitlines()]
    return (
        "## Policies\n\n"
        + "\n".join(lines)
        + (
            "\n\nA promise holds for the engine and precision that it was calibrated with. For the "
            "engine that answers here, run `offramp evaluate BUNDLE --data ...` and then `offramp "
            "calibrate BUNDLE`."
        )
    )


def _parity(manifest: BundleManifest) -> str:
    lines = [
        f"- {each.engine}: at most {each.difference:.1g} of a tensor's greatest absolute value, on "
        f"{each.samples} {each.inputs} samples ({each.tolerance:g} is allowed)"
        for each in manifest.parity
    ]
    return "## Difference from the trained model\n\n" + "\n".join(lines) if lines else ""


def _origin(about: Mapping[str, Any]) -> str:
    lines = [
        f"- {name.replace('_', ' ')}: {value}"
        for name, value in about.items()
        if name not in ("name", "accuracy", "measure") and isinstance(value, str | int | float)
    ]
    return "## Origin\n\n" + "\n".join(lines) if lines else ""


def _use() -> str:
    return (
        "## Use\n\n```bash\npip install offramp\nofframp run BUNDLE photo.jpg\n```\n\n"
        '```python\nfrom offramp import Runtime\n\nwith Runtime("BUNDLE") as runtime:\n'
        '    print(runtime.run("photo.jpg"))\n```'
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
