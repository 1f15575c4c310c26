"""Names that a user chose are no paths, and no clash of names is found after work was done."""

from pathlib import Path

from torch import Tensor

from offramp.backbones.staged import Cut, StagedBackbone, cut
from offramp.branches import ConvBranch
from offramp.training import fit_branches

Images = tuple[Tensor, Tensor]


def test_no_name_of_a_cut_leads_out_of_the_folder(
    backbone: StagedBackbone, train: Images, tmp_path: Path
) -> None:
    names = ["../../x", "/etc/x", "X", "x", "a" * 300, "con", "a b:c|d"]
    places = ["0", "1", "2", "3", "4", "5", "6"]
    cuts = [Cut(name, after=(place,)) for name, place in zip(names, places, strict=True)]
    wild = cut(backbone.original, cuts, train[0][:2])
    out = tmp_path / "here" / "run"
    model = fit_branches(
        wild,
        {name: [ConvBranch(layers=0, pool="global", hidden=3)] for name in names},
        train,
        train,
        seeds=[0],
        out=out,
        epochs=1,
    )
    assert {trial.cut for trial in model.trials} == set(names)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [path.name for path in out.parent.iterdir()] == ["run"]
    folders = [path.parent for path in out.rglob("events.out.tfevents.*")]
    assert len(folders) == len(names)
    assert len({str(folder).lower() for folder in folders}) == len(names)
    assert all(len(path.relative_to(out).parts) <= 5 for path in out.rglob("*"))
