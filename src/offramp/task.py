"""Task: classification or regression, and what depends on it."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from offramp.arguments import described
from offramp.errors import DataError, PlanError, ShapeError
from offramp.record import Record
from offramp.storage.arrays import finite, kept, shaped

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Measure(Record):
    """What is averaged over samples: whether an answer is right, or its absolute error.

    Attributes:
        name: Name in files: `accuracy`, a share from 0 to 1, or `mae`, the mean absolute error.
        label: Name in texts.
        higher_is_better: True for accuracy.
        unit: Unit in texts: %, or for an error the name of the value, such as people, if known.
        scale: Factor for values in texts.
        digits: Decimals in texts.
    """

    name: str
    label: str
    higher_is_better: bool
    unit: str
    scale: float
    digits: int

    def as_json(self) -> Any:
        """Its name alone."""
        return self.name

    @property
    def head(self) -> str:
        """Head of a column of values: `accuracy %`, or `MAE (people)`."""
        return self._head(self.label)

    @property
    def root_head(self) -> str:
        """Head of a column of root mean squared errors."""
        return self._head("RMSE")

    def _head(self, label: str) -> str:
        unit = self.unit if self.higher_is_better or not self.unit else f"({self.unit})"
        return f"{label} {unit}".strip()

    @property
    def difference_head(self) -> str:
        """Head of a column of differences."""
        return "points" if self.higher_is_better else self.head

    @property
    def noun(self) -> str:
        """What sentences call it: `accuracy`, or `MAE (people)`."""
        return self.label if self.higher_is_better else self.head

    @property
    def note(self) -> str:
        """What a reader of tables may have to be told; empty for accuracy."""
        return "" if self.higher_is_better else _RMSE

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value of one answer; None if errors can have any size."""
        return (0.0, 1.0) if self.higher_is_better else None

    @property
    def difference_bounds(self) -> tuple[float, float] | None:
        """The same for the difference of two answers."""
        return (-1.0, 1.0) if self.higher_is_better else None

    def values(
        self, outputs: NDArray[np.float32], labels: NDArray[np.generic]
    ) -> NDArray[np.float64]:
        """The measure of each single answer, (..., N) from outputs (..., N, K) and labels (N,)."""
        if self.higher_is_better:
            right: NDArray[np.bool_] = outputs.argmax(axis=-1) == labels
            return right.astype(np.float64)
        return np.abs(outputs[..., 0].astype(np.float64) - labels.astype(np.float64))

    def root(self, values: NDArray[np.float64]) -> float | None:
        """The root mean squared error of errors (..., N), a mean over the other axes.

        None for accuracy.
        """
        if self.higher_is_better:
            return None
        return float(np.sqrt((values**2).mean(axis=-1)).mean())

    def better(self, one: float, other: float) -> bool:
        """Whether one value is strictly better than another."""
        return one > other if self.higher_is_better else one < other

    def text(self, value: float) -> str:
        """The value as tables print it, without its unit."""
        return f"{self.scale * value:.{self.digits}f}"

    def root_texts(self, roots: Iterable[float | None]) -> list[str]:
        """Root mean squared errors as a column of a table; no column at all for accuracy."""
        if self.higher_is_better:
            return []
        return ["" if root is None else self.text(root) for root in roots]

    def amount(self, value: float) -> str:
        """The value as sentences print it after `noun`: `91.2 %`, or `3.250`."""
        return f"{self.text(value)} {self.unit}" if self.higher_is_better else self.text(value)

    def summary(self, value: float, root: float | None) -> str:
        """`accuracy 91.2 %`, or `MAE (people) 3.250, RMSE (people) 4.120`."""
        text = f"{self.noun} {self.amount(value)}"
        return text if root is None else f"{text}, {self.root_head} {self.text(root)}"

    def difference_text(self, value: float) -> str:
        """A difference of two values as tables print it, with its sign and one decimal more."""
        digits = self.digits + 1
        return f"{round(self.scale * value, digits) + 0.0:+.{digits}f}"  # + 0.0 unsigns -0.0


_RMSE = "RMSE is the root of the mean squared error, which papers on crowd counting often call MSE."
ACCURACY = Measure("accuracy", "accuracy", higher_is_better=True, unit="%", scale=100.0, digits=1)
MEAN_ABSOLUTE_ERROR = Measure("mae", "MAE", higher_is_better=False, unit="", scale=1.0, digits=3)


def measure_of(task: Task, names: Sequence[str] = ()) -> Measure:
    """The measure of a task: accuracy, or mean absolute error for regression.

    Args:
        task: The task.
        names: Names of classes, or the name of the value of a regression, if known.
    """
    if task == "classification":
        return ACCURACY
    return replace(MEAN_ABSOLUTE_ERROR, unit=names[0] if len(names) == 1 else "")


def check_task(task: object) -> None:
    """Refuse what is not a task.

    Raises:
        PlanError: With the tasks there are.
    """
    known = get_args(Task)
    if not isinstance(task, str) or task not in known:
        near = difflib.get_close_matches(str(task), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise PlanError(f"task is {described(task)}, not one of {', '.join(known)}{hint}")


def check_output_shape(shape: Sequence[int], task: Task) -> None:
    """Refuse a model whose answer to one sample, of this shape, does not fit the task.

    Raises:
        ShapeError: There is no such task, or it needs another shape.
    """
    check_task(task)
    if _is_one_value(shape) or (task == "classification" and len(shape) == 1):
        return
    wanted = "(1,) or one value"
    if task == "classification":
        wanted = "(classes,), or one logit for two classes"
    raise ShapeError(
        f"the backbone returns {tuple(shape)} per sample, but {task} needs {wanted}. "
        "Use a backbone with such an output, or choose the other task."
    )


def num_answers(shape: Sequence[int], task: Task) -> int:
    """K, the outputs of every exit, for a model whose answer to one sample has this shape.

    One value is one output in a regression. In a classification it is the logit of the second of
    two classes, which exits give as the two logits [0, value].
    """
    if _is_one_value(shape):
        return 2 if task == "classification" else 1
    return shape[-1]


def surest(task: Task) -> float:
    """Score of the last exit, which always answers, beside those of error predictors.

    It is the largest value that these can have.
    """
    return 1.0 if task == "classification" else 0.0


def _is_one_value(shape: Sequence[int]) -> bool:
    return tuple(shape) in ((), (1,))


def checked_labels(
    labels: ArrayLike, outputs: NDArray[np.float32], task: str
) -> NDArray[np.generic]:
    """Return the labels of outputs (..., N, K): int64 classes, or float64 for regression.

    Raises:
        ShapeError: Labels, outputs and task do not fit together.
    """
    check_task(task)
    given = shaped("labels", np.asarray(labels), outputs.shape[-2:-1])
    if task == "regression":
        return _regression_labels(given, outputs.shape[-1])
    return _class_labels(given, outputs.shape[-1])


def training_labels(
    labels: NDArray[Any],
    num_outputs: int,
    target_names: Sequence[str] = (),
    *,
    task: Task = "classification",
) -> NDArray[Any]:
    """Labels (N,) that a model is trained on: int64 classes, or float32 values.

    Args:
        labels: (N,) class numbers or values. Of two classes they may be 0.0 and 1.0, as binary
            cross entropy takes them.
        num_outputs: Of every exit.
        target_names: One per class; empty where classes have no names. Ignored for regression.
        task: What the labels are.

    Raises:
        DataError: Labels are probabilities, or, for classification, not class numbers or outside
            0..num_outputs - 1, or there are names, but not `num_outputs` many.
    """
    if labels.ndim > 1:
        raise DataError(
            f"each label is {labels.shape[1]} probabilities, and training takes one class number "
            "or value per sample. Give the most probable class."
        )
    if task == "regression":
        return labels.astype(np.float32, copy=False)
    if num_outputs == 2 and np.isin(labels, (0, 1)).all():
        labels = labels.astype(np.int64)
    _check_class_numbers(labels, num_outputs, target_names)
    return labels.astype(np.int64, copy=False)


def checked_target(target: Any, row: int) -> Any:
    """A class number, a value or probabilities (K,), as numpy holds them; a tensor is taken too.

    Raises:
        DataError: It is not a finite number, nor probabilities that sum to 1.
    """
    array = np.asarray(target.detach().cpu() if hasattr(target, "detach") else target)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"label {row} is {target!r}, which is not a number. Number the classes from 0, or "
            "give the value to predict as a float."
        )
    if not np.isfinite(array).all():
        raise DataError(f"label {row} is {target}. Remove the sample or correct its label.")
    if array.size == 1:
        number = array.reshape(())[()]
        return np.int64(number) if array.dtype.kind in "biu" else np.float32(number)
    if array.ndim != 1 or (array < 0).any() or abs(float(array.sum()) - 1) > 1e-3:
        raise ShapeError(
            f"label {row} has shape {array.shape}. Give one number per sample, or "
            "probabilities that sum to 1, one per class."
        )
    return array.astype(np.float32)


def as_targets(targets: Sequence[Any]) -> NDArray[Any]:
    """(N,) int64 if all are of whole-number types, else float32: (N,), or (N, K) if soft."""
    array = np.array(targets)
    return array.astype(np.int64 if array.dtype.kind in "biu" else np.float32)


def _check_class_numbers(
    labels: NDArray[Any], num_outputs: int, class_names: Sequence[str]
) -> None:
    if class_names and len(class_names) != num_outputs:
        raise DataError(
            f"the data has {len(class_names)} classes but the model has {num_outputs} outputs. "
            "Use a model trained on these classes, or the data it was trained on."
        )
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"the labels are floats such as {labels[0]:g}, not class numbers. Give whole numbers "
            "from 0, or train with task='regression'."
        )
    wrong = (labels < 0) | (labels >= num_outputs)
    if wrong.any():
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}, but the model has {num_outputs} "
            f"outputs, so classes are 0 to {num_outputs - 1}: {wrong.sum()} of {len(labels)} "
            f"labels do not fit, the first is that of sample {int(wrong.argmax())}. Number the "
            "classes from 0, or use a model with as many outputs; values to predict need "
            "task='regression'."
        )


def _regression_labels(labels: NDArray[Any], num_outputs: int) -> NDArray[np.float64]:
    if num_outputs != 1 or labels.dtype.kind not in "fiu":
        raise ShapeError(
            f"a regression has one output and numbers as labels; got {num_outputs} outputs and "
            f"{labels.dtype} labels. Set task='classification' for classes."
        )
    return kept(finite("labels", labels.astype(np.float64)))


def _class_labels(labels: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or num_classes < 2:
        raise ShapeError(
            f"a classification has at least 2 outputs and integers as labels; got {num_classes} "
            f"outputs and {labels.dtype} labels. Set task='regression' for values."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise ShapeError(
            f"labels must be 0 to {num_classes - 1}, because the outputs have {num_classes} "
            f"classes; sample {wrong[0]} is labelled {labels[wrong[0]]} ({wrong.size} such in "
            "all). Number the classes from 0, or use the model that was trained on them."
        )
    return kept(labels.astype(np.int64))
