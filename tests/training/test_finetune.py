"""Batches of a finetuning, and what they are read from."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from offramp.data import as_samples
from offramp.data.augment import Augment, augmented
from offramp.data.density import with_maps
from offramp.task import ACCURACY
from offramp.training.finetune import Loader, batch_rows, in_order, readers, run_epochs
from offramp.training.finetuner import Finetuner, parts_to_train
from offramp.training.lockstep import InTurn
from offramp.training.objective import Objective
from offramp.training.settings import FinetuneSettings

IMAGES = torch.randn(11, 3, 6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(11) % 2
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(7, 3, [3, 4]), (8, 3, [3, 3, 2]), (3, 1, [1, 1, 1]), (1, 4, [1]), (5, 4, [5])],
)
def test_a_single_last_sample_joins_the_batch_before_it(
    count: int, size: int, sizes: list[int]
) -> None:
    rows = batch_rows(np.arange(count), size)
    assert [len(each) for each in rows] == sizes
    assert np.concatenate(rows).tolist() == list(range(count))


def test_batches_follow_the_order_and_the_view_of_the_epoch() -> None:
    samples, augment = as_samples((IMAGES, LABELS)), Augment(flip=True, shift=1)
    loader = Loader(samples, LABELS, CPU, augment)
    order = np.array([7, 2, 5, 3])
    (first, targets), _ = loader.batches(order, 2, 3, InTurn())
    assert torch.equal(first[0], augmented(samples, augment, 2).read([7, 2]).inputs[0])
    assert torch.equal(targets, LABELS[[7, 2]])


def test_without_targets_it_gives_the_maps() -> None:
    maps = np.arange(22, dtype=np.float32).reshape(11, 2, 1)
    samples = with_maps((IMAGES, LABELS.float()), maps)
    found = [targets for _, targets in in_order(Loader(samples, None, CPU), 4, InTurn())]
    np.testing.assert_array_equal(torch.cat(found), maps)


class Threads:
    """A data set that notes which threads read it."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __len__(self) -> int:
        return 11

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        self.seen.add(threading.get_ident())
        return IMAGES[row], int(LABELS[row])


def test_a_user_s_data_set_is_read_by_the_calling_thread_alone() -> None:
    data = Threads()
    loader = Loader(as_samples(data), LABELS, CPU)
    with readers() as workers:
        assert len(list(in_order(loader, 2, workers))) == 5
    assert data.seen == {threading.get_ident()}


def test_progress_counts_the_samples_of_all_epochs(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 2))
    settings = FinetuneSettings(epochs=2, batch_size=6, lr=1e-3)
    parts = parts_to_train(model, "all")
    objective = Objective("classification", "mae")
    trained = Finetuner(model, parts, settings, objective)
    loader = Loader(as_samples((IMAGES, LABELS)), LABELS, CPU)
    state = tmp_path / "state.safetensors"
    run_epochs(
        *(trained, loader, loader, settings, state, InTurn(), ACCURACY),
        lambda *each: told.append(each),
    )
    counts = [each for each in told if each[2] != 1]
    assert [done for _, done, _ in counts] == [0, 6, 11, 11, 17, 22, 22]
    assert {total for *_, total in counts} == {22}
    assert told[0][0] == "finetuning: epoch 1/2"
    assert told[-1][0] == "finetuning"
    shown = [what for what, _, total in told if total == 1]
    scores = [100 * epoch.validation_score for epoch in trained.history]
    assert shown == [
        f"finetuning, epoch {number}/2: validation accuracy {score:.1f} %"
        for number, score in enumerate(scores, 1)
    ]
