import errno
import io
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torchvision import datasets, transforms

from offramp.data import DataSpec, HeldOut, ImageFolder, Samples
from offramp.data.splits import SPLIT_NAMES
from offramp.errors import DataError, OfframpWarning

CLASSES = ("ant", "bee", "cow")


def _picture(seed: int, width: int = 9, height: int = 7) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Four splits of three classes with two pictures each: one PNG, one JPEG."""
    root = tmp_path / "photos"
    for seed, name in enumerate(SPLIT_NAMES):
        for place, class_name in enumerate(CLASSES):
            folder = root / name / class_name
            folder.mkdir(parents=True)
            _picture(100 * seed + place).save(folder / "a.png")
            _picture(100 * seed + place + 50).save(folder / "b.JPG")
    return root


@pytest.fixture
def unsplit(tmp_path: Path) -> Path:
    """Three classes with 20 different pictures each."""
    root = tmp_path / "unsplit"
    for place, class_name in enumerate(CLASSES):
        (root / class_name).mkdir(parents=True)
        for k in range(20):
            _picture(100 * place + k).save(root / class_name / f"{k:02}.png")
    return root


def _load(root: Path, **settings: object) -> ImageFolder:
    return ImageFolder.model_validate({"root": root, "image_size": 8, **settings})


def _ids(images: Samples) -> list[str]:
    assert images.ids is not None
    return [str(name) for name in images.ids]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def test_a_folder_gives_its_splits_classes_and_names(split: Path) -> None:
    splits = _load(split).load()
    assert splits.target_names == CLASSES
    assert splits.skipped == ()
    for name, images in splits.named().items():
        assert images.targets.tolist() == [0, 0, 1, 1, 2, 2]
        assert _ids(images)[:3] == [
            f"{name}/ant/a.png", f"{name}/ant/b.JPG", f"{name}/bee/a.png",
        ]  # fmt: skip


def test_pixels_come_from_the_file_through_the_preprocessing(split: Path) -> None:
    data = _load(split)
    values, label = data.load().test[4]
    with Image.open(split / "test/cow/a.png") as picture:
        np.testing.assert_array_equal(values.numpy(), data.preprocess(picture))
    assert label == 2
    assert values.shape == (3, 8, 8)


def test_a_batch_of_files_has_the_bits_of_its_single_items(split: Path) -> None:
    images = _load(split).load().train
    batch = images.read([5, 0, 2])
    assert torch.equal(batch.inputs[0], torch.stack([images[k][0] for k in (5, 0, 2)]))
    assert batch.targets.tolist() == [2, 0, 1]


def test_grey_palette_and_transparent_pictures_become_three_channels(split: Path) -> None:
    grey = _picture(1).convert("L")
    for place, (mode, ending) in enumerate(
        [("L", "png"), ("L", "bmp"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("RGB", "webp")]
    ):
        grey.convert(mode).save(split / f"train/ant/{place}.{ending}", lossless=True)
    images = _load(split, mean=(0, 0, 0), std=(1, 1, 1)).load().train
    first, _ = images[0]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    for place in range(1, 6):
        assert torch.equal(images[place][0], first), _ids(images)[place]


def test_a_picture_on_its_side_is_turned_upright(split: Path) -> None:
    upright = Image.new("RGB", (8, 8), "black")
    upright.paste((255, 255, 255), (0, 0, 8, 4))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees clockwise
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(split / "train/ant/0.png", exif=exif)
    values, _ = _load(split, crop=None, mean=(0, 0, 0), std=(1, 1, 1)).load().train[0]
    assert values[:, :4].min() == 1
    assert values[:, 4:].max() == 0


def test_a_truncated_picture_is_fatal_and_named(split: Path) -> None:
    _truncate(split / "calibration/bee/b.JPG")
    with pytest.raises(DataError, match=r"1 of 24 files .*\n  calibration/bee/b\.JPG: .*truncated"):
        _load(split).load()


def test_the_error_names_five_bad_files_and_counts_the_others(split: Path) -> None:
    for path in [*split.glob("*/ant/a.png"), *split.glob("*/bee/a.png")]:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"8 of 24 files[\s\S]*and 3 more\n.*on_corrupt: skip"):
        _load(split).load()


def test_bad_pictures_can_be_skipped_but_never_in_silence(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _truncate(split / "train/ant/a.png")
    (split / "test/cow/b.JPG").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        splits = _load(split, on_corrupt="skip").load()
    assert [line.split(":")[0] for line in splits.skipped] == ["train/ant/a.png", "test/cow/b.JPG"]
    for name in ("train/ant/a.png", "test/cow/b.JPG"):
        assert f"left out, since it cannot be read: {name}" in caplog.text
    assert _ids(splits.train)[0] == "train/ant/b.JPG"
    assert splits.test.targets.tolist() == [0, 0, 1, 1, 2]


def test_a_16_bit_picture_counts_as_unreadable(split: Path) -> None:
    Image.fromarray(np.full((5, 5), 40_000, np.uint16)).save(split / "train/ant/a.png")
    with pytest.raises(DataError, match=r"train/ant/a\.png: .*more than 8 bits"):
        _load(split).load()


def test_a_class_of_which_nothing_is_left_is_refused(split: Path) -> None:
    for path in (split / "train/bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no sample of bee .* is left to train on"):
        _load(split, on_corrupt="skip").load()


def test_a_split_of_which_nothing_is_left_is_refused(split: Path) -> None:
    for path in (split / "test").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="test would be empty"):
        _load(split, on_corrupt="skip").load()


def test_a_picture_that_goes_away_later_is_named(split: Path) -> None:
    images = _load(split).load().train
    (split / "train/ant/a.png").unlink()
    with pytest.raises(DataError, match=r"train/ant/a\.png cannot be read: .*No such file"):
        images[0]


def test_a_picture_that_is_overwritten_later_is_refused(split: Path) -> None:
    images = _load(split).load().train
    _picture(777).save(split / "train/ant/a.png")
    with pytest.raises(DataError, match=r"train/ant/a\.png has changed since .* start again"):
        images.read([3, 0])
    assert images.read([3, 1]).targets.tolist() == [1, 0]


def test_without_the_check_damaged_pictures_are_found_when_they_are_read(split: Path) -> None:
    _truncate(split / "train/ant/a.png")
    splits = _load(split).load(check=False)
    with pytest.raises(DataError, match=r"train/ant/a\.png cannot be read: .*truncated"):
        splits.train.read([0])
    whole = _load(split, on_corrupt="skip").load(check=False)
    assert [line.split(":")[0] for line in whole.skipped] == ["train/ant/a.png"]


def test_the_content_is_known_without_decoding_a_picture(split: Path) -> None:
    checked = _load(split).load()
    unchecked = _load(split).load(check=False)
    for name, images in checked.named().items():
        assert unchecked.named()[name].content_key == images.content_key


def test_names_that_are_not_text_are_refused(split: Path) -> None:
    odd = os.fsencode(split / "train/ant") + b"/\xff.png"
    Path(os.fsdecode(odd)).write_bytes(b"")
    with pytest.raises(DataError, match=r"holds '\\udcff\.png', a name that is not valid UTF-8"):
        _load(split).load()


def test_a_folder_that_cannot_be_listed_is_named(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="photos cannot be listed: Permission denied"):
        _load(split).load()


def test_an_image_in_two_splits_is_reported_with_its_files(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (split / "test/ant/a.png").write_bytes((split / "train/ant/a.png").read_bytes())
    with caplog.at_level(logging.WARNING):
        _load(split).load()
    assert "1 sample is in more than one split" in caplog.text
    assert "train/ant/a.png = test/ant/a.png" in caplog.text


def test_the_content_key_follows_the_bytes_of_the_files(split: Path) -> None:
    before = _load(split).load()
    _picture(777).save(split / "train/ant/a.png")
    after = _load(split).load()
    assert after.train.content_key != before.train.content_key
    assert after.test.content_key == before.test.content_key


@pytest.mark.parametrize("limit", [3, 5, 6, 7])
def test_a_limit_takes_every_class(split: Path, limit: int) -> None:
    few = _load(split, limit=limit).load()
    assert len(few.validation) == min(limit, 6)
    assert set(few.validation.targets) == {0, 1, 2}


def test_loading_counts_the_files(split: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    _load(split).load(lambda *state: seen.append(state))
    assert seen == [
        (what, done, 24) for what in ("reading files", "checking files") for done in range(25)
    ]


@pytest.mark.parametrize("seed", [0, 1, 12])
def test_a_random_split_uses_each_image_once_in_the_given_shares(unsplit: Path, seed: int) -> None:
    shares = {"validation": 0.1, "calibration": 0.25, "test": 0.2, "seed": seed}
    splits = _load(unsplit, split=shares).load()
    sizes = {name: len(images) for name, images in splits.named().items()}
    assert sizes == {"train": 27, "validation": 6, "calibration": 15, "test": 12}
    ids = [name for images in splits.named().values() for name in _ids(images)]
    assert len(set(ids)) == 60


def test_a_random_split_is_the_same_again_and_differs_by_seed(unsplit: Path) -> None:
    first = _ids(_load(unsplit, split={}).load().test)
    assert _ids(_load(unsplit, split={}).load().test) == first
    assert _ids(_load(unsplit, split={"seed": 1}).load().test) != first


def test_too_few_images_for_a_split_are_refused(unsplit: Path) -> None:
    for path in sorted(unsplit.glob("*/*"))[4:]:
        path.unlink()
    for name in CLASSES[1:]:
        (unsplit / name).rmdir()
    with pytest.raises(DataError, match=r"validation would be empty: .* has 4 samples"):
        _load(unsplit, split={}).load()


def test_a_missing_split_is_named_with_the_folder_that_may_be_meant(split: Path) -> None:
    (split / "calibration").rename(split / "calibratoin")
    with pytest.raises(DataError, match=r"'calibration' \(rename 'calibratoin' to 'calibration'"):
        _load(split).load()


@pytest.fixture
def pair(unsplit: Path) -> Path:
    """Train and val: of three classes with 20 pictures each, 8 of each class in val."""
    root = unsplit.parent / "pair"
    for path in sorted(unsplit.glob("*/*")):
        target = root / ("val" if path.stem < "08" else "train") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return root


def test_of_a_train_val_pair_the_other_splits_are_drawn_from_val(pair: Path) -> None:
    splits = _load(pair).load().named()
    assert {name: len(images) for name, images in splits.items()} == {
        "train": 36,
        "validation": 6,
        "calibration": 12,
        "test": 6,
    }
    for name, images in splits.items():
        assert {one.split("/")[0] for one in _ids(images)} == {
            "train" if name == "train" else "val"
        }
        assert len({*np.bincount(images.targets).tolist()}) == 1  # as many of each class


def test_a_test_folder_of_its_own_stays_as_it_is(split: Path) -> None:
    (split / "calibration").rename(split / "gone")
    (split / "gone").rename(split.parent / "gone")
    splits = _load(split, held_out={"validation": 0.5, "calibration": 0.25, "test": 0.25}).load()
    assert {one.split("/")[0] for one in _ids(splits.test)} == {"test"}
    assert [len(part) for part in splits.named().values()][1:] == [4, 2, 6]


def test_of_a_train_test_pair_the_other_splits_are_drawn_from_test(pair: Path) -> None:
    (pair / "val").rename(pair / "test")
    splits = _load(pair).load()
    assert {one.split("/")[0] for one in _ids(splits.validation)} == {"test"}
    assert len(splits.test) == 6


def test_two_folders_for_validation_are_refused(split: Path) -> None:
    (split / "test").rename(split / "valid")
    with pytest.raises(DataError, match="several folders for validation: valid, validation"):
        _load(split).load()


@pytest.mark.parametrize("unreadable", ["val/*/*", "*/*/*"])
def test_splits_that_would_be_drawn_from_no_readable_picture_are_refused(
    pair: Path, unreadable: str
) -> None:
    for path in pair.glob(unreadable):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="validation, calibration, test would be empty"):
        _load(pair, on_corrupt="skip").load()


def test_shares_of_held_out_pictures_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must add up to 1, not 0\.75"):
        HeldOut(validation=0.25, calibration=0.25, test=0.25)


@pytest.mark.filterwarnings("ignore:sources that are also in train")
@pytest.mark.filterwarnings("ignore:classes of train that have no sample")
def test_pictures_of_one_source_are_drawn_into_one_split_and_count_once(pair: Path) -> None:
    splits = _load(pair, source=r"(\w+/\d)\d\.png").load()  # ten pictures of each class a source
    held = [*splits.named().values()][1:]
    sources = [{*map(str, images.clusters)} for images in held if images.clusters is not None]
    assert len(sources) == 3
    assert sum(map(len, sources)) == len(set.union(*sources))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(", "not a regular expression"),
        ("a", "needs one group"),
        ("(x9)", "matches nothing in 60"),
    ],
)
def test_an_expression_that_names_no_source_is_refused(
    pair: Path, expression: str, message: str
) -> None:
    with pytest.raises((ValidationError, DataError), match=message):
        _load(pair, source=expression).load()


@pytest.mark.parametrize("trained", ["val", "val/*", "*/ant/*"])
def test_calibrating_on_pictures_that_trained_the_backbone_is_warned_of(
    pair: Path, trained: str
) -> None:
    with pytest.warns(OfframpWarning, match=r"of 12 calibration and \d of 6 test samples were"):
        _load(pair, trained_on=[trained]).load()


def test_training_pictures_in_train_are_as_it_should_be(pair: Path) -> None:
    assert len(_load(pair, trained_on=["train"]).load().train) == 36


def test_a_training_folder_that_is_not_there_is_refused(pair: Path) -> None:
    with pytest.raises(DataError, match="'trian', but no sample matches it"):
        _load(pair, trained_on=["trian"]).load()


def test_listed_classes_fix_the_order_and_may_be_missing_in_a_split(split: Path) -> None:
    shutil.rmtree(split / "test/cow")
    (split / "validation/ant/a.png").unlink()
    (split / "validation/ant/b.JPG").unlink()
    splits = _load(split, classes=["cow", "dog", "bee", "ant"]).load()
    assert splits.target_names == ("cow", "dog", "bee", "ant")
    assert {*splits.test.targets.tolist()} == {2, 3}
    assert {*splits.validation.targets.tolist()} == {0, 2}


def test_a_folder_that_is_not_a_listed_class_is_refused(split: Path) -> None:
    with pytest.raises(DataError, match="holds cow, which `classes` does not list"):
        _load(split, classes=["ant", "bee"]).load()


def test_a_class_listed_twice_is_refused(split: Path) -> None:
    with pytest.raises(ValidationError, match="names a class twice"):
        _load(split, classes=["ant", "bee", "ant"])


def test_an_error_about_an_unsplit_folder_says_how_to_split_it(unsplit: Path) -> None:
    with pytest.raises(DataError, match=r"add `split: \{\}` to draw them at random"):
        _load(unsplit).load()


def test_a_split_folder_is_not_taken_for_classes(split: Path) -> None:
    with pytest.raises(DataError, match=r"should hold the images of one class, but holds folders"):
        _load(split, split={}).load()


def test_classes_that_differ_between_splits_are_listed(split: Path) -> None:
    (split / "validation/bee").rename(split / "validation/wasp")
    with pytest.raises(DataError) as caught:
        _load(split).load()
    assert "train lacks wasp; validation lacks bee; calibration lacks wasp" in str(caught.value)


def test_an_empty_class_is_refused_and_named(split: Path) -> None:
    for path in (split / "test/cow").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"test/cow holds no image"):
        _load(split).load()


def test_files_that_are_not_images_are_reported(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (split / "train/ant/notes.txt").write_text("an ant")
    (split / "train/ant/.hidden").write_text("")
    with caplog.at_level(logging.WARNING):
        splits = _load(split).load()
    assert len(splits.train) == 6
    assert (
        "these were not read, since they are not .jpg/.jpeg/.png/.bmp/.webp/.tif/.tiff: 1 .txt"
        in caplog.text
    )


@pytest.mark.parametrize(("name", "text"), [("absent", "is not a folder"), (".", "no folder")])
def test_a_root_without_images_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "something").mkdir()
    with pytest.raises(DataError, match=text):
        _load(tmp_path / name).load()


def test_an_empty_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty: it holds no folders"):
        _load(tmp_path).load()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"split": {"test": 0.7, "calibration": 0.3}}, "add up to 1.1, which leaves nothing"),
        ({"on_corrupt": "ignore"}, "'raise' or 'skip'"),
        ({"splitt": {}}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        ImageFolder.model_validate({"root": "photos", **settings})


def test_a_plan_names_its_kind_of_data() -> None:
    adapter: TypeAdapter[DataSpec] = TypeAdapter(DataSpec)
    assert adapter.validate_python({"kind": "image_folder", "root": "x"}) == ImageFolder(root="x")
    with pytest.raises(ValidationError, match="'fashion_mnist', 'cifar10'"):
        adapter.validate_python({"kind": "fashion_mnst"})


def test_decoding_does_not_depend_on_the_name_of_the_file(split: Path) -> None:
    held = io.BytesIO()
    _picture(5).save(held, "JPEG")
    (split / "train/ant/a.png").write_bytes(held.getvalue())  # a JPEG, whatever its name says
    assert _load(split).load().skipped == ()


def test_the_defaults_are_torchvisions_usual_transforms(split: Path) -> None:
    samples = ImageFolder(root=split).load(check=False).train
    chain = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ]
    )
    theirs = datasets.ImageFolder(split / "train", chain)
    for place in range(3):
        assert torch.equal(samples[place][0], theirs[place][0])
        assert samples[place][1] == theirs[place][1]


@pytest.mark.parametrize(
    ("settings", "resize_to", "crop"),
    [
        ({"image_size": 64}, 73, None),
        ({"image_size": (20, 31)}, (20, 31), None),
        ({"crop": 0.9}, None, 0.9),
        ({"crop": None}, None, None),
        ({"resize_to": 232}, 232, None),
    ],
)
def test_how_pictures_are_resized_is_written_down(
    settings: dict[str, object], resize_to: object, crop: float | None
) -> None:
    data = ImageFolder.model_validate({"root": "x", **settings})
    assert (data.resize_to, data.crop) == (resize_to, crop)
    assert ImageFolder.model_validate(data.model_dump(mode="json")) == data


def test_a_wrong_size_is_one_mistake_not_two() -> None:
    for size in ("large", 0, [1, 2, 3]):
        with pytest.raises(ValidationError, match=r"1 validation error .*\nimage_size"):
            ImageFolder.model_validate({"root": "x", "image_size": size})


@pytest.mark.parametrize("exif", [True, False])
def test_exif_can_be_switched_off(split: Path, exif: bool) -> None:
    upright = _picture(3, width=8, height=8)
    orientation = Image.Exif()
    orientation[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(split / "train/ant/0.png", exif=orientation)
    data = _load(split, crop=None, exif=exif)
    expected = data.preprocess(upright if exif else turned)
    np.testing.assert_array_equal(data.load().train[0][0].numpy(), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("ending", ["tif", "TIFF"])
def test_the_first_page_of_a_tiff_file_is_read(split: Path, mode: str, ending: str) -> None:
    pages = [_picture(seed).convert(mode) for seed in (1, 2)]
    pages[0].save(split / f"train/ant/0.{ending}", "TIFF", save_all=True, append_images=pages[1:])
    data = _load(split)
    expected = data.preprocess(pages[0])
    np.testing.assert_array_equal(data.load().train[0][0].numpy(), expected)


def test_a_picture_of_16_bits_is_named(split: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(split / "train/ant/0.tif")
    with pytest.raises(DataError, match=r"train/ant/0\.tif: .*more than 8 bits per channel"):
        _load(split).load()


def test_a_folder_gives_grey_pictures_that_are_not_square(split: Path) -> None:
    settings = {"image_size": [6, 8], "channels": 1, "mean": [0.4], "std": [0.2]}
    values, _ = _load(split, **settings).load().train[0]
    with Image.open(split / "train/ant/a.png") as picture:
        grey = np.asarray(picture.convert("L").resize((8, 6), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(values[0], (grey / 255 - 0.4) / 0.2, atol=1e-6)
    assert values.shape == (1, 6, 8)
