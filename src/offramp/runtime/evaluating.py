"""Evaluating a bundle: the answers of its exits here, stored in it to make promises from."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from offramp.answering.inputs import NONE, Numbers
from offramp.errors import BundleError, DataError
from offramp.outputs import ExitOutputs
from offramp.progress import Progress, silent
from offramp.runtime.folders import SPLITS
from offramp.runtime.measuring import measured_times, times_here
from offramp.runtime.runtime import Runtime
from offramp.storage.folder import Contents, changing, read_folder
from offramp.storage.manifest import BUNDLE
from offramp.storage.names import lacking, outputs_of


def evaluate_bundle(
    runtime: Runtime, data: Mapping[str, Any], *, progress: Progress = silent
) -> dict[str, ExitOutputs]:
    """Answer calibration or test samples with an opened bundle, and store the answers in it.

    `calibrate` makes promises from them, which hold for the engine and precision of `runtime`.
    Samples are answered once more for each input that some of the exits can do without. Stages and
    branches are timed unless the bundle has times that apply here.

    Args:
        runtime: The opened bundle.
        data: A data set for each of `calibration` and `test`, or for one of them, as
            `Runtime.collect` takes it. Stored answers of the other one stay.
        progress: Called with the state of each kind of work.

    Returns:
        What was written, by file.

    Raises:
        DataError: Samples cannot be read or do not fit, or both splits are the same samples.
        BundleError: The folder cannot be written, or was replaced since it was opened.
    """
    since = _opened(runtime)
    manifest = runtime.bundle.manifest
    times = times_here(manifest.times, runtime.parts.engine)
    if times is None:
        times = measured_times(runtime.bundle, runtime.parts, progress=progress)
    found: dict[str, ExitOutputs] = {}
    for split, samples in data.items():
        for absent in _absences(runtime):
            names = runtime.facts.names_of(absent)
            found[_file(split, absent)] = runtime.collect(
                samples,
                split=f"{split}, no {' and '.join(names)}" if absent else split,
                without=absent,
                timings=None if absent else times,
                progress=progress,
            )
    _check_apart(since, found)
    with changing(since.folder, BUNDLE, since=since) as staged:
        for name, outputs in found.items():
            outputs.save(staged / name)
    return found


def _opened(runtime: Runtime) -> Contents:
    """The graphs as they were when the bundle was opened; they must not be replaced meanwhile."""
    contents = runtime.bundle.contents
    if contents is None:
        raise BundleError(
            "this bundle was not opened from a folder, so answers cannot be stored in it. Open it "
            "by its folder: Runtime('bundle'), or take them from Runtime.collect."
        )
    files = {each.file: b"" for each in runtime.bundle.manifest.graphs}
    return replace(contents, files=files)


def _absences(runtime: Runtime) -> Iterator[Numbers]:
    """No input, and each input that some exits, but not all, can do without."""
    facts = runtime.facts
    yield NONE
    for number in range(len(facts.inputs)):
        if 0 < len(facts.exits_without(number)) < len(facts.exits):
            yield frozenset({number})


def _file(split: str, absent: Numbers) -> str:
    file = outputs_of(split)
    for number in absent:
        file = lacking(file, number)
    return file


def _check_apart(since: Contents, found: Mapping[str, ExitOutputs]) -> None:
    """Refuse test samples that thresholds are chosen on."""
    keys = [
        (outputs.source or {}).get("data")
        for split in SPLITS
        if (outputs := found.get(outputs_of(split)) or _stored(since, outputs_of(split)))
    ]
    if len(keys) == 2 and keys[0] == keys[1]:
        raise DataError(
            f"the calibration and the test samples of {since.folder} would be the same, and "
            "quality that is measured on the samples that chose the thresholds looks too good. "
            "Give other samples for one of the splits."
        )


def _stored(since: Contents, name: str) -> ExitOutputs | None:
    """Stored answers, if they are there and not damaged."""
    try:
        return ExitOutputs.load(read_folder(since.folder, BUNDLE, [name]).files[name])
    except BundleError:
        return None
