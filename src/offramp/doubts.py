"""Doubts: signs of a mistake in samples and answers that no other check refuses."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from offramp.errors import OfframpWarning
from offramp.outputs import ExitOutputs
from offramp.table import counted

_FEWEST = 20
"""Number of samples below which answers are not judged."""
_NEAR_CHANCE = (0.1, 0.25)
"""Of the way from guessing to all right: a network below the first is taken to guess, and one below
the second where so few samples do not tell it from guessing."""
_FAR = 0.1
"""By which accuracy an early exit must be better to be far above the final one."""
_FITS = 0.25
"""By which accuracy other class numbers must fit better to be named as a cause."""
_SHOWN = 5
_LACKS = 3
"""Classes that a warning names for each split that lacks them; it counts the others."""

_CAUSES = (
    "Likely causes: labels that number the classes in a different order from the network's; inputs "
    "prepared in a different way (size, order of channels, mean and standard deviation); weights "
    "that were not loaded, or are for other classes; batch-norm statistics that are far from the "
    "data's after a short training."
)
STAND_IN_DOUBT = (
    "the data are stand-in files, made to try everything without the real data set, so nothing "
    "measured on them is a result."
)
_SHARED_SOURCES = (
    "A network can recognise a source instead of what it should learn, so what is chosen, promised "
    "and measured on these splits is too good for samples of new sources. Put all samples of a "
    "source into one split, or, if different sources have the same name by mistake, give them "
    "different names."
)


class DoubtWarning(OfframpWarning):
    """Samples or answers that look like a mistake; the message names likely causes."""


def warn_of(doubts: Sequence[str], stacklevel: int = 3) -> None:
    """Issue each warning, by default for the caller's caller."""
    for doubt in doubts:
        warnings.warn(doubt, DoubtWarning, stacklevel=stacklevel)


def class_counts(
    labels: NDArray[np.integer], class_names: Sequence[str] = (), shown: int = _SHOWN
) -> str:
    """How many samples each class has that occurs, as text: `ant 20, bee 7 and 3 more`."""
    classes, counts = np.unique(labels, return_counts=True)
    named = [
        f"{_name(label, class_names)} {count:,}"
        for label, count in zip(classes[:shown].tolist(), counts.tolist(), strict=False)
    ]
    return ", ".join(named) + _and_more(len(classes) - shown)


def doubts_of_labels(
    labels: NDArray[np.integer], num_classes: int, class_names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Warnings about the labels (N,) of training samples, 0 to num_classes - 1."""
    present = np.unique(labels)
    if len(present) == 1:
        return (
            f"all {len(labels):,} training samples are of class {_name(present[0], class_names)}, "
            "so branches learn to answer nothing else. Give samples of every class.",
        )
    missing = np.setdiff1d(np.arange(num_classes), present)
    if not len(missing):
        return ()
    named = ", ".join(_name(label, class_names) for label in missing[:_SHOWN].tolist())
    return (
        f"the training samples leave out {len(missing):,} of the network's {num_classes:,} classes "
        f"({named}{_and_more(len(missing) - _SHOWN)}), which branches cannot learn. Samples by "
        f"class: {class_counts(labels, class_names)}. If these {len(present)} are all the classes "
        "of your task, use a network that was trained for them and ends in as many outputs; "
        "otherwise add samples of what is left out.",
    )


def doubts_of_sources(
    clusters: Mapping[str, NDArray[np.generic] | None],
    known: Sequence[str] = (),
    remark: str = _SHARED_SOURCES,
) -> tuple[str, ...]:
    """Warnings about sources of training samples that other splits have samples of, too.

    Args:
        clusters: (N,) the source of each sample, by split; None where sources are not known.
        known: Warnings that need not be repeated, whatever their remark.
        remark: What follows from it and what to do.
    """
    sources = {name: {*map(str, each)} for name, each in clusters.items() if each is not None}
    trained = sources.pop("train", set())
    shared = {name: each & trained for name, each in sources.items() if each & trained}
    if not shared:
        return ()
    counts = [f"{len(each):,} of {len(sources[name]):,} in {name}" for name, each in shared.items()]
    example = min(set.union(*shared.values()))
    found = f"sources that are also in train: {', '.join(counts)}, such as {example!r}."
    return () if any(each.startswith(found) for each in known) else (f"{found} {remark}",)


def doubts_of_classes(
    labels: Mapping[str, NDArray[np.integer]],
    clusters: Mapping[str, NDArray[np.generic]],
    class_names: Sequence[str],
) -> tuple[str, ...]:
    """Warnings about classes of training samples that other splits have no sample of.

    Args:
        labels: (N,) the class number of each sample, by split.
        clusters: (N,) the source of each sample, by split.
        class_names: One per class number; empty if classes have no names.
    """
    trained, found = np.unique(labels["train"]), []
    for split in labels:
        missing = np.setdiff1d(trained, labels[split]).tolist()
        lacks = [repr(class_names[number] if class_names else number) for number in missing]
        if lacks:
            more = f" and {len(lacks) - _LACKS} more" if len(lacks) > _LACKS else ""
            number = counted(len(np.unique(clusters[split])), "source")
            found.append(f"{', '.join(lacks[:_LACKS])}{more} in {split} ({number})")
    if not found:
        return ()
    return (
        f"classes of train that have no sample elsewhere: {'; '.join(found)}. Nothing that is "
        "chosen, promised or measured there says how well these classes are answered. Samples of "
        "one source stay in one split, so add sources of these classes, or draw the splits with "
        "other shares or another seed.",
    )


def doubts_of_answers(outputs: ExitOutputs) -> tuple[str, ...]:
    """Warnings about the final exit's answers, compared with labels and early exits."""
    if len(outputs.labels) < _FEWEST:
        return ()
    found = _of_classes if outputs.task == "classification" else _of_values
    return tuple(found(outputs))


def _of_classes(outputs: ExitOutputs) -> Iterator[str]:
    right = outputs.correct
    yield from _probabilities(outputs.outputs[-1])
    if _is_sigmoid(outputs.outputs[-1]):
        return  # what follows from it says nothing more
    classes, place = np.unique(outputs.labels, return_inverse=True)
    counts = np.bincount(place)
    recall, chance = np.bincount(place, weights=right[-1]) / counts, 1 / len(classes)
    if len(classes) > 1 and recall.mean() < chance + _margin(counts):
        yield (
            f"the final exit hardly does better than guessing: averaged over {len(classes)} "
            f"classes it is right on {100 * recall.mean():.1f} % of their samples, and guessing "
            f"on {100 * chance:.1f} %. {_cause(outputs)}"
        )
    elif (better := _better_exit(right)) is not None:
        yield (
            f"the final exit is right on {100 * right[-1].mean():.1f} % of the samples and the "
            f"early exit {outputs.names[better]!r} on {100 * right[better].mean():.1f} %, "
            f"although both are computed by the same network. {_cause(outputs)}"
        )


def _margin(counts: NDArray[np.int64]) -> float:
    """By how much accuracy per class, of such counts, must be above guessing."""
    chance = 1 / len(counts)
    noise = 2 * np.sqrt((chance * (1 - chance) / counts).sum()) / len(counts)
    least, most = (share * (1 - chance) for share in _NEAR_CHANCE)
    return float(np.clip(noise, least, most))


def _of_values(outputs: ExitOutputs) -> Iterator[str]:
    errors = outputs.measure.values(outputs.outputs, outputs.labels).mean(axis=1)
    labels = outputs.labels.astype(np.float64)
    constant = float(np.abs(labels - np.median(labels)).mean())
    if errors[-1] >= constant > 0:
        yield (
            f"the final exit's {outputs.measure.head} is {errors[-1]:.4g}, while always answering "
            f"the median of the labels gives {constant:.4g}. Likely causes: labels in different "
            "units or on a different scale from those that the network was trained with; inputs "
            "prepared in a different way; weights that were not loaded."
        )


def _probabilities(final: NDArray[np.float32]) -> Iterator[str]:
    """Answers (N, K) that look as if the network ended in a softmax or a sigmoid."""
    if _is_sigmoid(final):
        yield (
            "the final exit's logit lies between 0 and 1 for every sample, as if the network ended "
            "in a sigmoid, so every sample is answered with class 1. Remove the sigmoid before you "
            "cut."
        )
    elif final.min() >= 0 and np.allclose(final.sum(axis=1), 1, atol=1e-3):
        yield (
            "the final exit's answers are probabilities, as if the network ended in a softmax, and "
            "scores apply a second one. Remove the network's softmax before you cut."
        )


def _is_sigmoid(final: NDArray[np.float32]) -> bool:
    """Whether two logits (N, 2) are [0, z] with z between 0 and 1 for every sample."""
    inside = final.min() >= 0 and final.max() <= 1
    return bool(inside and final.shape[1] == 2 and not final[:, 0].any())


def _better_exit(right: NDArray[np.bool_]) -> int | None:
    """The best early exit if it is far above the final one, beyond chance."""
    early, final = right[:-1], right[-1]
    if not len(early):
        return None
    best = int(early.mean(axis=1).argmax())
    gained, lost = int((early[best] & ~final).sum()), int((final & ~early[best]).sum())
    far = gained - lost >= _FAR * len(final)
    return best if far and gained - lost > 3 * np.sqrt(gained + lost) else None


def _cause(outputs: ExitOutputs) -> str:
    """Likely causes; only the numbering of the classes if another one fits."""
    answers, labels = outputs.predictions[-1].astype(np.int64), outputs.labels.astype(np.int64)
    names = outputs.class_names
    if len(np.unique(answers)) == 1:
        return f"It answers class {_name(answers[0], names)} for every sample. {_CAUSES}"
    fitting = _renumbering(answers[::2], labels[::2], outputs.outputs.shape[-1])
    renumbered = float((fitting[answers[1::2]] == labels[1::2]).mean())
    if renumbered < float((answers[1::2] == labels[1::2]).mean()) + _FITS:
        return _CAUSES
    moved = [
        (answer, label) for answer, label in enumerate(fitting.tolist()) if -1 < label != answer
    ]
    pairs = ", ".join(f"{_name(a, names)} for {_name(b, names)}" for a, b in moved[:_SHOWN])
    return (
        f"With the labels renumbered it would be right on {100 * renumbered:.1f} %: it answers "
        f"{pairs}{_and_more(len(moved) - _SHOWN)}. So the labels most likely number the classes in "
        f"a different order from the network's: {_remedy(fitting, names)}."
    )


def _remedy(fitting: NDArray[np.int64], names: Sequence[str]) -> str:
    """How to renumber the labels, by a line for the plan if classes have names."""
    whole = sorted(fitting.tolist()) == list(range(len(fitting)))
    if not whole or len(names) != len(fitting):
        return "renumber them"
    listed = ", ".join(json.dumps(names[label], ensure_ascii=False) for label in fitting)
    return f"renumber them (in a plan, by `classes: [{listed}]` under `data`)"


def _renumbering(
    answers: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.int64]:
    """For each class answered, (K,), the label that goes with it most often; -1 where none does.

    No label is given twice; the most frequent pairs come first.
    """
    pairs, counts = np.unique(np.stack([answers, labels]), axis=1, return_counts=True)
    fitting, taken = np.full(num_classes, -1), set()
    for answer, label in pairs.T[np.argsort(-counts, kind="stable")].tolist():
        if fitting[answer] < 0 and label not in taken:
            fitting[answer] = label
            taken.add(label)
    return fitting


def _name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if class_names else str(label)


def _and_more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""
