import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from offramp.backbones.staged import StagedBackbone, cut
from offramp.branches import ConvBranch, SLViT
from offramp.data import as_samples
from offramp.errors import BundleError, DataError, PlanError
from offramp.multiexit.model import MultiExit
from offramp.multiexit.trial import Trial
from offramp.training import fit_branches
from offramp.training.outcome import best_per_cut
from offramp.training.settings import Keep

Images = tuple[Tensor, Tensor]
Fit = Callable[..., MultiExit]
Name = tuple[str, str, int]


def results(model: MultiExit) -> dict[Name, Trial]:
    return {(trial.cut, trial.spec.model_dump_json(), trial.seed): trial for trial in model.trials}


def same(one: Trial, other: Trial) -> bool:
    weights, others = one.branch.state_dict(), other.branch.state_dict()
    return one.history == other.history and all(
        torch.equal(value, others[name]) for name, value in weights.items()
    )


def all_same(some: MultiExit, among: MultiExit) -> bool:
    known = results(among)
    return all(same(trial, known[name]) for name, trial in results(some).items())


def count_learning(events: list[str]) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if "epoch" in what:
            events.append(what)

    return progress


def test_every_spec_trains_with_every_seed_and_the_best_on_validation_is_chosen(fit: Fit) -> None:
    model = fit()
    assert [(t.cut, t.spec.kind, t.seed) for t in model.trials] == [
        (cut, kind, seed)
        for cut, kind in (("2", "slvit"), ("2", "conv"), ("4", "conv"))
        for seed in (3, 5)
    ]
    for cut_name, trial in model.chosen.items():
        rivals = [other for other in model.trials if other.cut == cut_name]
        assert trial.validation_score == max(other.validation_score for other in rivals)


def test_trained_branches_clearly_beat_chance(fit: Fit) -> None:
    model = fit(epochs=15, lr=1e-2)
    assert min(trial.validation_score for trial in model.chosen.values()) > 0.5


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_trial_reports_the_epoch_that_was_kept_and_holds_its_weights(
    fit: Fit, validation: Images, keep: Keep
) -> None:
    model = fit(epochs=8, lr=3e-2, cache_dtype="float32", keep=keep)
    for trial in model.trials:
        losses = [epoch.validation_loss for epoch in trial.history]
        best = 1 + losses.index(min(losses))
        assert trial.best_epoch == (best if keep == "best" else len(losses))
        answers = model.answer(as_samples(validation), [trial], 23, "", lambda *_: None)
        outputs = torch.from_numpy(answers.by_branch[0])
        loss = nn.functional.cross_entropy(outputs, validation[1])
        assert float(loss) == pytest.approx(trial.validation_loss, rel=1e-4)
        right = float((outputs.argmax(dim=1) == validation[1]).double().mean())
        assert right == trial.validation_score


def test_the_same_call_gives_the_same_weights_and_another_seed_others(fit: Fit) -> None:
    once = fit()
    assert all_same(fit(), once)
    trials = results(once)
    by_seed: dict[int, Trial] = {seed: t for (place, _, seed), t in trials.items() if place == "4"}
    assert not same(by_seed[3], by_seed[5])


def test_a_branch_trains_to_the_same_weights_alone_and_with_others(fit: Fit) -> None:
    together = fit()
    for trial in together.trials:
        assert all_same(fit({trial.cut: [trial.spec]}, seeds=[trial.seed]), together)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(fit: Fit, tmp_path: Path) -> None:
    assert all_same(fit(threads=3), fit(threads=1))
    events: list[str] = []
    fit(out=tmp_path, threads=1)
    fit(out=tmp_path, threads=2, progress=lambda what, *_: events.append(what))
    assert len(events) == 1
    assert events[0].startswith("training cached")


@pytest.mark.slow
def test_branches_that_stop_at_different_epochs_do_not_disturb_each_other(fit: Fit) -> None:
    options = {"epochs": 30, "lr": 3e-2, "stop_patience": 2, "lr_patience": 1}
    together = fit(**options)
    assert len({len(trial.history) for trial in together.trials}) > 1
    last = together.trials[-1]
    assert all_same(fit({last.cut: [last.spec]}, seeds=[last.seed], **options), together)


@pytest.mark.slow
def test_the_learning_rate_falls_on_a_plateau_and_patience_ends_training(fit: Fit) -> None:
    for trial in fit(epochs=60, lr=5e-2, stop_patience=3).trials:
        rates = [epoch.lr for epoch in trial.history]
        assert rates == sorted(rates, reverse=True)
        assert len(trial.history) in (trial.best_epoch + 3, 60)


def test_the_backbone_keeps_every_bit_and_the_global_generator_its_place(
    fit: Fit, backbone: StagedBackbone
) -> None:
    before = {k: v.clone() for k, v in backbone.original.state_dict().items()}
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    fit(threads=1)
    for name, value in backbone.original.state_dict().items():
        assert torch.equal(value, before[name])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_standardising_uses_the_statistics_of_the_training_taps(
    fit: Fit, backbone: StagedBackbone, train: Images
) -> None:
    model = fit(cache_dtype="float32")
    with torch.no_grad():
        _, [taps] = backbone.stages[0]((train[0],))
    for trial in model.trials:
        if trial.cut == "2" and "std" in trial.spec.label():
            given = trial.branch.get_submodule("standardise")
            expected = taps.mean(dim=(0, 2, 3)), taps.std(dim=(0, 2, 3), correction=0)
            torch.testing.assert_close(given.mean, expected[0])
            torch.testing.assert_close(given.std, expected[1])


def test_finished_work_is_not_done_again(fit: Fit, tmp_path: Path) -> None:
    first = fit(out=tmp_path)
    events: list[str] = []
    again = fit(out=tmp_path, progress=count_learning(events))
    assert events == []
    assert all_same(again, first)


def test_a_further_seed_and_cut_train_without_repeating_the_others(
    fit: Fit, branches: dict[str, Any], tmp_path: Path
) -> None:
    fit({"2": branches["2"]}, seeds=[3], out=tmp_path)
    events: list[str] = []
    more = fit(out=tmp_path, progress=count_learning(events))
    assert all_same(more, fit())
    assert {what for what in events if "at '2'" in what} == {
        f"training 6 branches: {label} at '2', seed 5, epoch {epoch}/3"
        for label in (spec.label() for spec in branches["2"])
        for epoch in (1, 2, 3)
    }


@pytest.mark.parametrize(
    "change",
    [{"lr": 1e-3}, {"batch_size": 8}, {"data_seed": 1}, {"epochs": 2}, {"cache_dtype": "float32"}],
)
def test_a_changed_setting_never_picks_up_old_state(
    fit: Fit, tmp_path: Path, change: dict[str, Any]
) -> None:
    small = {"branches": {"2": [ConvBranch(filters=3, hidden=9)]}, "seeds": [3], "epochs": 1}
    fit(out=tmp_path, **small)
    changed = small | change
    assert all_same(fit(out=tmp_path, **changed), fit(**changed))


@pytest.mark.slow
def test_changed_data_never_picks_up_old_state(
    fit: Fit, train: Images, validation: Images, tmp_path: Path
) -> None:
    fit(out=tmp_path, epochs=1)
    other: dict[str, Images] = {
        "train": (train[0], train[1].roll(1)),
        "validation": (validation[0][1:], validation[1][1:]),
    }
    for split, data in other.items():
        assert all_same(
            fit(out=tmp_path, epochs=1, **{split: data}), fit(epochs=1, **{split: data})
        )


def test_ctrl_c_at_any_event_leaves_a_state_to_resume_from(fit: Fit, tmp_path: Path) -> None:
    whole = fit()
    for stop_at in (2, 9, 17):
        seen = iter(range(1000))

        def interrupt(*_: object, seen: Iterable[int] = seen, stop_at: int = stop_at) -> None:
            if next(iter(seen)) == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(out=tmp_path, progress=interrupt)
    assert all_same(fit(out=tmp_path), whole)


def test_a_damaged_state_is_trained_again(
    fit: Fit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = fit(out=tmp_path)
    path = sorted(tmp_path.glob("state/*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert all_same(fit(out=tmp_path), whole)
    assert "starts again" in caplog.text


def test_curves_are_written_for_every_branch_or_not_at_all(fit: Fit, tmp_path: Path) -> None:
    fit(out=tmp_path / "with", tensorboard=True, epochs=1)
    fit(out=tmp_path / "without", tensorboard=False, epochs=1)
    folders = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    assert len(folders) == 6
    assert tmp_path / "with/tensorboard/4/conv-k3-f3-mlp9-drop0.3-std/seed5" in folders


def test_values_are_learned_with_the_given_loss(train: Images, validation: Images) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 7, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 1)
        )
    backbone = cut(net, ["1"], train[0][:2])
    data = [(images, labels * 1.5) for images, labels in (train, validation)]
    histories = []
    for loss in ("mae", "mse"):
        model = fit_branches(
            backbone,
            {"1": [ConvBranch(filters=3, hidden=9)]},
            *data,
            seeds=[0],
            epochs=12,
            lr=1e-2,
            task="regression",
            regression_loss=loss,
        )
        histories.append(model.trials[0].history)
        assert model.trials[0].validation_score < 0
        assert histories[-1][-1].train_loss < 0.7 * histories[-1][0].train_loss
    best = histories[0][0]
    assert best.validation_score == pytest.approx(-best.validation_loss)
    assert histories[0] != histories[1]


def test_one_value_per_sample_without_an_axis_is_a_regression(
    train: Images, validation: Images, tmp_path: Path
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Flatten(), nn.Linear(420, 1), nn.Flatten(0)
        ).eval()
    backbone = cut(net, ["1"], train[0][:2])
    assert backbone(train[0]).shape == net(train[0]).shape == (41,)
    assert (backbone.output_shape, backbone.num_outputs) == ((), 1)
    data = [(images, labels * 1.5) for images, labels in (train, validation)]
    model = fit_branches(
        backbone, {"1": [ConvBranch(filters=3)]}, *data, seeds=[0], epochs=1, task="regression"
    )
    assert model(train[0]).shape == (2, 41, 1)
    outputs = model.collect(data[0])
    assert outputs.outputs.shape == (2, 41, 1)
    np.testing.assert_allclose(outputs.outputs[1, :, 0], net(train[0]).detach(), rtol=1e-5)
    model.save(tmp_path)
    assert MultiExit.load(tmp_path, net)(train[0]).shape == (2, 41, 1)


def test_a_predictor_is_trained_together_with_its_branch(
    backbone: StagedBackbone, train: Images, validation: Images
) -> None:
    spec = SLViT(patch=2, dim=6, heads=2, hidden=9, error_predictor=True)
    model = fit_branches(backbone, {"4": [spec]}, train, validation, seeds=[0], epochs=6, lr=1e-2)
    weights = model.chosen["4"].branch.state_dict()
    assert weights["head.6.weight"].abs().min() > 0  # it starts at zero
    assert model.collect(train).scores is not None


def test_bf16_trains_close_to_fp32(fit: Fit) -> None:
    full, half = fit(), fit(precision="bf16")
    assert not all_same(half, full)
    for trial in half.trials:
        name = (trial.cut, trial.spec.model_dump_json(), trial.seed)
        other = results(full)[name]
        assert trial.history[0].train_loss == pytest.approx(other.history[0].train_loss, rel=0.05)
        assert all(v.dtype != torch.bfloat16 for v in trial.branch.state_dict().values())


def test_training_that_always_diverges_says_what_to_change(fit: Fit) -> None:
    text = r"no branch could be trained: .*seed 3: diverged in epoch 1; .*standardise"
    with pytest.raises(DataError, match=text):
        fit(lr=1e30, epochs=2)


def test_a_folder_that_cannot_be_made_is_a_clear_error(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BundleError, match="cannot be created"):
        fit(out=tmp_path / "file" / "run")


def test_seeds_given_twice_are_refused(fit: Fit) -> None:
    with pytest.raises(PlanError, match="twice"):
        fit(seeds=[1, 1])


def test_a_tie_on_validation_goes_to_the_lower_loss_then_to_the_first() -> None:
    def trial(seed: int, score: float, loss: float) -> Trial:
        return Trial("here", ConvBranch(), seed, nn.Identity(), (), 1, loss, score)

    trials = [trial(0, 0.5, 0.1), trial(1, 0.8, 0.4), trial(2, 0.8, 0.3), trial(3, 0.8, 0.3)]
    assert best_per_cut(trials)["here"].seed == 2


@pytest.mark.gpu
def test_training_on_cuda_repeats_and_comes_near_the_cpu(
    fit: Fit, branches: dict[str, Sequence[ConvBranch | SLViT]]
) -> None:
    once = fit(device="cuda")
    assert all_same(fit(device="cuda"), once)
    assert all(next(each.branch.parameters()).device.type == "cpu" for each in once.trials)
    # A GPU draws other dropout than a CPU.
    steady = {
        cut: [spec.model_copy(update={"dropout": 0.0}) for spec in specs]
        for cut, specs in branches.items()
    }
    cpu = results(fit(steady))
    for name, trial in results(fit(steady, device="cuda")).items():
        loss = trial.history[0].train_loss
        assert loss == pytest.approx(cpu[name].history[0].train_loss, rel=0.01)
    fit(device="cuda", precision="bf16")
