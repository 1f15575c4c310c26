"""Options and functions that verbs share: reading outputs, showing values, progress."""

import fnmatch
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from offramp.cli.notices import is_quiet
from offramp.cli.progress import progress_on_stderr
from offramp.cli.streams import alert, put
from offramp.progress import Progress, silent

if TYPE_CHECKING:
    from offramp.outputs import ExitOutputs
    from offramp.storage.folder import Contents

POLICY = "policy.json"
"""File of a run's policy or menu, in its folder."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
AsJsonLines = Annotated[
    bool, typer.Option("--jsonl", help="Print a line of JSON for each result as it comes.")
]
BackboneFile = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="FILE:FUNCTION",
        help="Your Python file, and the function in it that returns the nn.Module.",
    ),
]
DataFile = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE:FUNCTION",
        help="Your Python file, and the function in it that returns the splits train, "
        "validation, calibration and test.",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the data is now, if it is not where the plan says.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:0 or mps.")
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of CPU threads.", show_default="torch's own choice"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the plan; repeatable."),
]
Outputs = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="A run or bundle (its test split), or an .npz of outputs."),
]
CalibrationOutputs = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run or bundle (its calibration split), or an .npz of outputs."
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        help="What runs the graphs of a bundle: onnxruntime, onnxruntime:cuda, "
        "onnxruntime:coreml, openvino, or auto (the fastest here).",
    ),
]
Precision = Annotated[
    str, typer.Option(metavar="PRECISION", help="What the engine computes in: fp32 or bf16.")
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder that `offramp train` wrote.")
]

RunOrBundle = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder that `offramp train` wrote, or a bundle of `offramp export`.",
    ),
]


def check_for_bundle(backbone_file: str | None, device: str) -> None:
    """Refuse options that a run has and a bundle has not, as wrong usage."""
    if backbone_file is not None or device != "cpu":
        raise typer.BadParameter(
            "--backbone and --device are for a run; a bundle has --engine, which may name a "
            "provider, such as onnxruntime:cuda"
        )


def read_outputs(outputs: Path, split: str, *others: str) -> "tuple[ExitOutputs, Contents | None]":
    """Outputs of a file, or of a run or bundle on a split, with what was read from the folder.

    Of a bundle, outputs among `others` may be missing.
    """
    from offramp.errors import BundleError
    from offramp.outputs import ExitOutputs
    from offramp.storage.folder import read_folder
    from offramp.storage.manifest import BUNDLE, kind_of

    if not outputs.is_dir():
        return ExitOutputs.load(outputs), None
    name, kind = f"outputs/{split}.npz", kind_of(outputs)
    may_lack = [each for each in others if kind is BUNDLE and each.startswith("outputs/")]
    needed = [each for each in others if each not in may_lack]
    run = read_folder(outputs, kind, needed, optional=[name, *may_lack])
    if name not in run.files and kind is BUNDLE:
        raise BundleError(
            f"{outputs} has no answers to {split} samples. Collect them in the engine that "
            f"answers: offramp evaluate {outputs} --data PLAN, or a folder of pictures by class."
        )
    if name not in run.files:
        raise BundleError(
            f"{outputs} has no answers to {split} samples, since its data has no {split} split. "
            "Add that split to the data of its plan and train again, or give an .npz of answers "
            "to samples that are used neither to train nor to test the run."
        )
    return ExitOutputs.load(run.files[name]), run


def read_without(run: Path, absent: str) -> "tuple[ExitOutputs, Contents, int]":
    """Outputs of a run's calibration split without an input, what was read, the input's number.

    Args:
        run: The run folder.
        absent: The input, by its name or its number.

    Raises:
        PlanError: `run` is not a folder.
        BundleError: The run has no such outputs.
    """
    from offramp.errors import BundleError, PlanError
    from offramp.outputs import ExitOutputs
    from offramp.policy.policy import inputs_left_out
    from offramp.storage.folder import read_folder
    from offramp.storage.manifest import kind_of
    from offramp.storage.names import lacking, outputs_of

    if not run.is_dir():
        raise PlanError(
            f"--without is for a run, and {run} is not a folder. A file of outputs knows which "
            "inputs it was collected without; leave out --without."
        )
    files = [lacking(outputs_of(split), "*") for split in ("calibration", "test")]
    contents = read_folder(run, kind_of(run), optional=files)
    names: dict[int, str] = {}
    for file in fnmatch.filter(contents.files, files[0]):
        rows, number = ExitOutputs.load(contents.files[file]), int(file[:-4].rpartition("-")[2])
        [names[number]] = inputs_left_out(rows.source)
        if absent in (names[number], str(number)):
            return rows, contents, number
    if names:
        raise BundleError(
            f"{run} has answers to calibration samples without {' or '.join(names.values())}, but "
            f"not without {absent!r}. Name one of these inputs."
        )
    raise BundleError(
        f"{run} has no answers to calibration samples that lack an input. A run has them if its "
        "data has a calibration split and some of its exits, but not all, can do without the "
        "input. To a run of an earlier version `offramp evaluate` adds them."
    )


def check_usage(option: str, text: str, pattern: str, example: str) -> None:
    """Refuse an option's text as wrong usage unless it matches."""
    if re.fullmatch(pattern, text) is None:
        raise typer.BadParameter(f"got {text!r}; give for example {example}", param_hint=option)


class Shown(Protocol):
    """A value that can be shown: as text by `str`, and as plain values."""

    def as_json(self) -> Any:
        """Plain values for `json.dumps`."""


def show(value: Shown, as_json: bool) -> None:
    """Print a value on standard output: its own text, or one JSON document."""
    put(json_text(value.as_json(), indent=1) if as_json else str(value))


def show_line(content: Any) -> None:
    """Print plain values on standard output as a line of JSON, at once."""
    put(json_text(content))


def json_text(content: Any, indent: int | None = None) -> str:
    """Plain values as JSON, which has no NaN and no infinity: those become null."""
    from offramp.record import plain

    return json.dumps(plain(content), indent=indent, allow_nan=False)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress on standard error, unless --quiet."""
    if is_quiet():
        yield silent
        return
    with progress_on_stderr() as progress:
        yield progress


RESUMES = "stopped; repeat the same command and it resumes"
STARTS_OVER = "stopped; the run folder is intact, and the same command starts over"
LEAVES_NOTHING = "stopped; nothing was written"


@contextmanager
def stopping(says: str) -> Iterator[None]:
    """After Ctrl-C, say on standard error what repeating the command does; exit with code 130.

    As a decorator it covers a whole verb, including the import of torch.
    """
    try:
        yield
    except KeyboardInterrupt:
        alert(says)
        raise typer.Exit(130) from None
