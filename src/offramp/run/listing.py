"""Listing: the runs below a folder and what is known of each, quickly and without torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from offramp.doubts import STAND_IN_DOUBT
from offramp.errors import BundleError, OfframpError
from offramp.record import Record
from offramp.run.names import EXTENSION, METRICS, PLAN, POLICY, WORK, lacking
from offramp.spec import FINAL
from offramp.storage.folder import READY, Contents, is_stored, read_folder
from offramp.storage.manifest import BACKBONE, MANIFEST, RUN, FolderKind
from offramp.table import Table, bytes_text, counted
from offramp.task import Measure, measure_of

DEPTH = 3
"""Depth to which a folder is searched for runs."""
_ODD = (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, OfframpError)
"""Errors of reading a folder that is not a run."""


@dataclass(frozen=True)
class BestExit(Record):
    """The early exit with the best value on the test samples, among those that were chosen.

    Attributes:
        measure: `accuracy` or `mae`.
        unit: Name of the value of a regression, if it is known.
    """

    name: str
    measure: str
    value: float
    unit: str = ""


@dataclass(frozen=True)
class ListedRun(Record):
    """What is known of a run without loading its model.

    Attributes:
        name: Path of its folder, relative to the listed one.
        state: `finished`, `extending`, `unfinished`, `model` (of `MultiExit.save`), `backbone` (of
            `offramp finetune`) or `damaged`.
        step: The step that an unfinished run or an extension has reached, or what is wrong with a
            damaged run.
        backbone: Its name in the plan, or the file and function given by a flag.
        data: Kind of the data and the last part of its root, or the file and function given by a
            flag.
        cuts: Number of cuts with branches.
        branches: Number of different branches over all cuts.
        trials: Number of branches times seeds and learning rates.
        failed: Number of trials that failed.
        best: The best early exit of a finished run, or the answer of a finetuned backbone.
        warnings: What is kept with the measurements of a finished run or a backbone.
        policies: Promise of each policy of the run.
        changed: Time of the last change.
        num_bytes: Size on disk, with `work/`.
    """

    name: str
    state: str
    step: str = ""
    backbone: str | None = None
    data: str | None = None
    cuts: int | None = None
    branches: int | None = None
    trials: int | None = None
    failed: int | None = None
    best: BestExit | None = None
    warnings: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    changed: str | None = None
    num_bytes: int = 0


@dataclass(frozen=True)
class Listing(Record):
    """The runs below a folder, by name."""

    folder: str
    runs: tuple[ListedRun, ...]

    def __str__(self) -> str:
        if not self.runs:
            return f"no runs in {self.folder}"
        table = Table.of(
            ("run", [run.name for run in self.runs]),
            ("state", [run.state for run in self.runs]),
            ("backbone", [run.backbone or "" for run in self.runs]),
            ("data", [run.data or "" for run in self.runs]),
            ("branches", ["" if run.branches is None else str(run.branches) for run in self.runs]),
            ("trials", ["" if run.trials is None else str(run.trials) for run in self.runs]),
            ("best exit", [_best_text(run) for run in self.runs]),
            ("policy", ["; ".join(run.policies) for run in self.runs]),
            ("changed", [(run.changed or "")[:16].replace("T", " ") for run in self.runs]),
            ("size", [bytes_text(run.num_bytes) for run in self.runs]),
            left=4,
        )
        steps = [f"{run.name}: {run.state}, {run.step}" for run in self.runs if run.step]
        return "\n".join([str(table), *([""] if steps else []), *steps])


def list_runs(folder: str | Path) -> Listing:
    """List the runs in a folder and up to three folders below it.

    Only small files are read: a finished run counts as complete if its manifest and the files shown
    are intact and the others exist.

    Raises:
        BundleError: There is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BundleError(f"{root} is not a folder. Name a folder with runs in it, such as runs.")
    found = sorted(_runs_below(root, DEPTH))
    return Listing(str(root), tuple(_listed(path, _name(path, root)) for path in found))


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
    elif depth:
        with suppress(OSError):  # a folder that may not be read holds nothing to list
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                    yield from _runs_below(path, depth - 1)


def _is_run(folder: Path) -> bool:
    try:
        if (folder / PLAN).is_file() and (folder / WORK).is_dir():
            return True
        if not is_stored(folder):
            return False
        kind = json.loads((folder / MANIFEST).read_bytes()).get("format", "")
        return str(kind).startswith((f"offramp {RUN.name} ", f"offramp {BACKBONE.name} "))
    except _ODD:
        return any((folder / name).is_file() for name in (METRICS, "model.safetensors"))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else root.name or str(root)


def _listed(folder: Path, name: str) -> ListedRun:
    try:
        facts = _finished(folder) if is_stored(folder) else _unfinished(folder)
    except _ODD as error:
        facts = {"state": "damaged", "step": str(error) or type(error).__name__}
    return ListedRun(name, changed=_changed(folder), num_bytes=_size(folder), **facts)


def _finished(folder: Path) -> dict[str, Any]:
    if _is_backbone(folder):
        return _finetuned(folder)
    stored = read_folder(folder, RUN, [], [METRICS, POLICY, lacking(POLICY, "*")])
    _check_files(stored, RUN)
    manifest = stored.manifest
    facts = {
        "state": "model",
        "cuts": len(manifest["cuts"]),
        "branches": len({(trial["cut"], str(trial["spec"])) for trial in manifest["trials"]}),
        "trials": len(manifest["trials"]) + len(manifest["failed"]),
        "failed": len(manifest["failed"]),
        "policies": _policies(stored),
    }
    if "plan" in manifest:
        metrics = json.loads(stored.files[METRICS])
        facts |= {"state": "finished", "best": _best(stored, metrics)}
        facts |= {"warnings": tuple(metrics.get("warnings", ())), **_planned(manifest["plan"])}
        facts["backbone"] = (manifest.get("backbone") or {}).get("function", facts["backbone"])
        facts["data"] = manifest.get("data_function") or facts["data"]
    bigger = folder / WORK / EXTENSION
    if bigger.exists():
        facts |= {"state": "extending", "step": _step(folder / WORK, _read_plan(bigger))}
    return facts


def _is_backbone(folder: Path) -> bool:
    found = [path for path in (folder / MANIFEST, folder / READY / MANIFEST) if path.exists()]
    try:
        kind = json.loads(found[0].read_bytes()).get("format", "")
    except _ODD:
        return False
    return str(kind).startswith(f"offramp {BACKBONE.name} ")


def _finetuned(folder: Path) -> dict[str, Any]:
    stored = read_folder(folder, BACKBONE)
    _check_files(stored, BACKBONE)
    manifest, result = stored.manifest, stored.manifest["result"]
    facts = {"state": "backbone", **_named(manifest["plan"])}
    facts["backbone"] = manifest["backbone"].get("function", facts["backbone"])
    facts["data"] = manifest["data_function"] or facts["data"]
    measure = measure_of(result["task"], manifest["class_names"])
    facts["best"] = _best_of(FINAL, measure, result["test"])
    facts["warnings"] = tuple(result.get("warnings", ()))
    return facts


def _check_files(stored: Contents, kind: FolderKind) -> None:
    for file in stored.manifest["files"]:
        if file != PLAN and not (stored.folder / file).exists():
            raise BundleError(f"{file} is missing. {kind.remedy(file)}")


def _unfinished(folder: Path) -> dict[str, Any]:
    plan = _read_plan(folder / PLAN)
    if "branches" not in plan:
        return {"state": "unfinished", "step": _epochs(folder / WORK, plan), **_named(plan)}
    return {"state": "unfinished", "step": _step(folder / WORK, plan), **_planned(plan)}


def _planned(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run that its plan states."""
    branches = sum(map(len, plan["branches"].values()))
    return {
        **_named(plan),
        "cuts": len(plan["branches"]),
        "branches": branches,
        "trials": branches * _trials_each(plan),
    }


def _named(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Backbone and data of any plan."""
    data = plan["data"]
    root = Path(data["root"]).name if data.get("root") else ""
    return {"backbone": plan["backbone"]["name"], "data": f"{data['kind']} {root}".rstrip()}


def _trials_each(plan: Mapping[str, Any]) -> int:
    rates = plan["train"]["lr"]
    return len(plan["train"]["seeds"]) * (len(rates) if isinstance(rates, list) else 1)


def _read_plan(path: Path) -> Mapping[str, Any]:
    """A plan as a run has written it, without a check of its values."""
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(plan, dict):
        raise BundleError(f"{path.name} is not a plan")
    return plan


def _step(work: Path, plan: Mapping[str, Any]) -> str:
    """The step that a run has reached, judged by its files."""
    if not (work / "how.json").exists():
        return "checking the data"
    if not any((work / "state").glob("*.safetensors")):
        return "computing taps"
    done, total = trained_branches(work), int(_planned(plan)["trials"])
    return "evaluating" if done >= total else f"training, {done} of {total} branches done"


def _epochs(work: Path, plan: Mapping[str, Any]) -> str:
    """The epoch that a finetuning has reached, over all its stages."""
    stages = [plan[stage] for stage in ("density", "train") if plan.get(stage)]
    done = sum(len(found["history"]) for found in map(_scalars, (work / "state").glob("*.safe*")))
    return f"finetuning, {done} of {sum(stage['epochs'] for stage in stages)} epochs done"


def trained_branches(work: Path) -> int:
    """Number of branches in a work folder whose training has ended."""
    return sum(map(_is_trained, (work / "state").glob("*.safetensors")))


def _is_trained(state: Path) -> bool:
    scalars = _scalars(state)
    return bool(scalars["plateau"]["stopped"] or scalars["failure"])


def _scalars(state: Path) -> dict[str, Any]:
    """What a training state says besides its tensors; that of a new one where it is damaged."""
    from safetensors import SafetensorError, safe_open  # here: only unfinished runs need it

    try:
        with safe_open(state, "numpy") as file:
            scalars: dict[str, Any] = json.loads(json.loads(file.metadata()["state"])["scalars"])
    except (*_ODD, SafetensorError):
        return {"plateau": {"stopped": False}, "failure": None, "history": []}
    return scalars


def _best(stored: Contents, metrics: Mapping[str, Any]) -> BestExit | None:
    early = metrics["exits"]["exits"][:-1]
    measure = measure_of(stored.manifest["task"], stored.manifest.get("class_names", ()))
    if not early:
        return None
    best = (max if measure.higher_is_better else min)(early, key=lambda point: point["value"])
    return _best_of(best["name"], measure, best["value"])


def _best_of(name: str, measure: Measure, value: float) -> BestExit:
    return BestExit(name, measure.name, value, "" if measure.higher_is_better else measure.unit)


def _policies(stored: Contents) -> tuple[str, ...]:
    every = []
    names = sorted(set(stored.files) - {METRICS}, key=lambda name: (name != POLICY, name))
    for file in names:
        content = json.loads(stored.files[file])
        every += content.get("policies", [content])
    return tuple(map(_policy_text, every))


def _policy_text(policy: Mapping[str, Any]) -> str:
    promise, absent = policy.get("promise"), (policy.get("source") or {}).get("without", ())
    text = "no promise" if promise is None else f"{promise['goal']} {promise['limit']:g}"
    return f"{text} without {' and '.join(absent)}" if absent else text


def _best_text(run: ListedRun) -> str:
    if (best := run.best) is None:
        return ""
    marks = f" ({_mark(run.warnings)})" if run.warnings else ""
    if best.measure == "accuracy":
        return f"{100 * best.value:.1f} % at {best.name}{marks}"
    unit = f" ({best.unit})" if best.unit else ""
    return f"MAE{unit} {best.value:.3g} at {best.name}{marks}"


def _mark(warnings: Sequence[str]) -> str:
    """What a value is marked with; one measured on stand-in files is not a result."""
    return "stand-in files" if STAND_IN_DOUBT in warnings else counted(len(warnings), "warning")


def _changed(folder: Path) -> str | None:
    times = [
        path.stat().st_mtime
        for path in (folder / MANIFEST, folder / PLAN, *(folder / WORK).glob("*"))
        if path.is_file()
    ]
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") if times else None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile, or not to be read
            total += path.lstat().st_size if not path.is_dir() else 0
    return total
