"""Weights files of Keras: read by name, and compared with Keras itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp.backbones.paper.keras_weights import densenet201_place, read_keras, resnet152_place
from offramp.backbones.zoo import architecture, build, describe
from offramp.errors import BundleError
from offramp.preprocess import ImagePreprocess

h5py = pytest.importorskip("h5py")


def write(path: Path, layers: Mapping[str, Mapping[str, Any]]) -> Path:
    """A file in the layout of Keras 2: `conv1/conv` holds `conv1/conv/kernel:0`."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{kind}:0".encode() for kind in arrays]
            for kind, array in arrays.items():
                group[f"{name}/{kind}:0"] = np.asarray(array, np.float32)
    return path


def test_kernels_dense_weights_and_statistics_are_laid_out_as_in_torch(tmp_path: Path) -> None:
    kernel = np.arange(24.0).reshape(1, 2, 3, 4)
    layers: dict[str, Any] = {
        "input_1": {},
        "conv1/conv": {"kernel": kernel, "bias": np.zeros(4)},
        "conv1/bn": {"gamma": [1], "beta": [2], "moving_mean": [3], "moving_variance": [4]},
        "fc1000": {"kernel": [[1, 2, 3], [4, 5, 6]]},
    }
    found = read_keras(write(tmp_path / "small.h5", layers))
    assert list(found) == ["conv1_conv", "conv1_bn", "fc1000"]
    assert found["conv1_conv"]["weight"].shape == (4, 3, 1, 2)
    assert found["conv1_conv"]["weight"][3, 2, 0, 1] == kernel[0, 1, 2, 3]
    assert {name: float(value) for name, value in found["conv1_bn"].items()} == {
        "weight": 1,
        "bias": 2,
        "running_mean": 3,
        "running_var": 4,
    }
    assert found["fc1000"]["weight"].tolist() == [[1, 4], [2, 5], [3, 6]]


@pytest.mark.parametrize(
    ("place", "layer", "path"),
    [
        (resnet152_place, "conv1_bn", "bn1"),
        (resnet152_place, "conv4_block36_3_bn", "layer3.35.bn3"),
        (resnet152_place, "conv2_block1_0_conv", "layer1.0.downsample.0"),
        (densenet201_place, "bn", "features.norm5"),
        (densenet201_place, "pool3_conv", "features.transition2.conv"),
        (densenet201_place, "conv5_block32_1_bn", "features.denseblock4.denselayer32.norm2"),
    ],
)
def test_a_layer_of_keras_is_a_module_of_the_same_name_in_torchvision(
    place: Any, layer: str, path: str
) -> None:
    assert place(layer) == path
    assert place(f"{layer}x") is None


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "vgg.h5", {"block1_conv1": {"kernel": np.zeros((3, 3, 3, 8))}})
    with pytest.raises(BundleError, match=r"has layers that .* lacks: block1_conv1"):
        build("paper:resnet152", weights=path)


def test_a_file_without_all_layers_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "part.h5", {"conv1_conv": {"kernel": np.zeros((7, 7, 3, 64))}})
    with pytest.raises(BundleError, match=r"missing: conv1\.bias"):
        build("paper:resnet152", weights=path)


@pytest.mark.parametrize("content", [b"", b"not an hdf5 file"])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.h5"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="Download Keras's published file again"):
        build("paper:resnet152", weights=path)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("wanted", "held", "message"),
    [
        (
            "paper:resnet152",
            "torchvision:resnet152",
            r"strides in the 3x3 .*Use torchvision:resnet152",
        ),
        ("torchvision:resnet152", "paper:resnet152", r"1x1 .*In torchvision.*Use paper:resnet152"),
        ("timm:resnet152", "paper:resnet152", r"1x1 .*In timm:resnet152.*Use paper:resnet152"),
        (
            "paper:inceptionv3",
            "torchvision:inception_v3",
            r"have a scale .*Use torchvision:inception_v3",
        ),
        (
            "torchvision:inception_v3",
            "paper:inceptionv3",
            r"have no scale .*In torchvision.*Use paper:inceptionv3",
        ),
    ],
)
def test_weights_of_the_similar_network_are_refused_with_the_reason(
    wanted: str, held: str, message: str, prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    first = ("layer1.0.conv1.", "Conv2d_1a_3x3.")
    with torch.device("meta"):
        names = [name for name in architecture(held).state_dict() if name.startswith(first)]
    torch.save({f"{prefix}{name}": torch.zeros(1) for name in names}, path)
    with torch.device("meta"), pytest.raises(BundleError, match=message):
        build(wanted, weights=path)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def randomised(model: Any) -> Any:
    """With weights and statistics drawn at random, so that no two layers are alike."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        noise = random.normal(size=weight.shape).astype(np.float32)
        kind = weight.path.rpartition("/")[2]
        if kind == "kernel":
            noise *= np.sqrt(2 / np.prod(weight.shape[:-1]))
        else:
            noise = (kind in ("gamma", "moving_variance")) + 0.1 * noise
        weight.assign(noise)
    return model


def saved(model: Any, path: Path) -> Path:
    """Written as Keras 2 did: names with a colon, and numbers that start at 1."""
    layers = {}
    for layer in model.layers:
        arrays = {w.path.rpartition("/")[2]: w.value.detach().numpy() for w in layer.weights}
        layers[layer.name] = arrays
    return write(path, layers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "function", "mode"),
    [
        ("paper:resnet152", "ResNet152", "caffe"),
        ("paper:densenet201", "DenseNet201", "torch"),
        ("paper:inceptionv3", "InceptionV3", "tf"),
    ],
)
def test_a_backbone_with_keras_weights_answers_as_keras_does(
    keras: Any, tmp_path: Path, name: str, function: str, mode: str
) -> None:
    side = 96
    theirs = randomised(
        getattr(keras.applications, function)(
            weights=None, input_shape=(side, side, 3), classifier_activation=None
        )
    )
    ours = build(name, weights=saved(theirs, tmp_path / "weights.h5"))
    pixels = np.random.default_rng(1).integers(0, 256, (2, side, side, 3), np.uint8)
    scaled = keras.applications.imagenet_utils.preprocess_input(
        pixels.astype(np.float32), mode=mode
    )
    expected = theirs.predict(scaled, verbose=0)
    [given] = describe(name).inputs
    assert isinstance(given, ImagePreprocess)
    with torch.inference_mode():
        found = ours(torch.from_numpy(given.normalise(pixels))).numpy()
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_papers_top_stays_new_where_keras_weights_have_their_own(
    keras: Any, tmp_path: Path
) -> None:
    theirs = keras.applications.DenseNet201(weights=None, input_shape=(64, 64, 3))
    path = saved(theirs, tmp_path / "weights.h5")
    new = architecture("paper:densenet201", num_outputs=5)
    loaded = build("paper:densenet201", weights=path, num_outputs=5)
    state = loaded.state_dict()
    assert torch.equal(state["classifier.0.weight"], new.state_dict()["classifier.0.weight"])
    kernel = theirs.get_layer("conv1_conv").kernel.value.detach().numpy().transpose(3, 2, 0, 1)
    assert np.array_equal(state["features.conv0.weight"].numpy(), kernel)
