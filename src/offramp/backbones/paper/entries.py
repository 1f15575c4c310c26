"""The paper's backbones (section 4.1) as rows of the zoo's table."""

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn

from offramp.backbones.entry import Backbone, BuildRequest
from offramp.backbones.paper.audiocsrnet import AudioCSRNet, front_ends
from offramp.backbones.paper.densenet201 import keras_densenet201
from offramp.backbones.paper.inceptionv3 import keras_inceptionv3
from offramp.backbones.paper.keras_weights import (
    KerasLayout,
    densenet201_place,
    resnet152_place,
)
from offramp.backbones.paper.resnet152 import KerasResNet152
from offramp.backbones.staged import Cut
from offramp.errors import PlanError
from offramp.preprocess import ImagePreprocess
from offramp.preprocess.spectrogram import VGGISH

_SIDE = 224
_BYTE = 1 / 255  # Keras takes away a mean of 0..255 and does not scale
_DISCO = {"mean": (0.4108, 0.3706, 0.3597), "std": (0.2786, 0.2693, 0.2716)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _published(name: str) -> str:
    return (
        f"Get Keras's {name}_weights_tf_dim_ordering_tf_kernels.h5 from Keras's list of published "
        "weights and give that file as weights."
    )


def _resnet152(request: BuildRequest) -> nn.Module:
    return KerasResNet152(request.num_outputs, **request.options)


def _not_resnet152(state: Mapping[str, Tensor]) -> str | None:
    """Torchvision's ResNet152 has the same names without biases, and strides elsewhere."""
    if "layer1.0.conv1.weight" in state and "layer1.0.conv1.bias" not in state:
        return (
            "holds weights of torchvision's ResNet152, which strides in the 3x3 convolutions and "
            "has no biases (v1.5). In paper:resnet152, which strides in the 1x1 convolutions as "
            "Keras's does, they would give other answers. Use torchvision:resnet152, or Keras's "
            "resnet152_weights_tf_dim_ordering_tf_kernels.h5."
        )
    return None


def _not_inceptionv3(state: Mapping[str, Tensor]) -> str | None:
    """Torchvision's InceptionV3 has the same names, and scales in its batch norms."""
    if "Conv2d_1a_3x3.bn.weight" in state:
        return (
            "holds weights of torchvision's InceptionV3, whose batch norms have a scale and whose "
            "mean pooling counts cells outside the map. In paper:inceptionv3, which has no scale "
            "and leaves those cells out as Keras does, they would give other answers. Use "
            "torchvision:inception_v3, or Keras's "
            "inception_v3_weights_tf_dim_ordering_tf_kernels.h5."
        )
    return None


def _audiocsrnet(request: BuildRequest) -> nn.Module:
    if request.num_outputs not in (None, 1):
        raise PlanError("paper:audiocsrnet gives one number, a count. Leave out num_outputs.")
    made = AudioCSRNet(**request.options)
    if request.download:
        vgg = torchvision.models.vgg16(weights="DEFAULT").features
        made.vgg.load_state_dict(vgg[: len(made.vgg)].state_dict())
    return made


ENTRIES = (
    Backbone(
        "paper:resnet152",
        _resnet152,
        cuts={
            "paper:1": Cut("paper:1", taps=("layer2.0.conv1",)),  # the 12th of all convolutions
            "paper:2": Cut("paper:2", taps=("layer2.7.conv3",)),  # the 36th
        },
        inputs=(
            ImagePreprocess(
                height=_SIDE,
                width=_SIDE,
                mean=(123.68 * _BYTE, 116.779 * _BYTE, 103.939 * _BYTE),
                std=(_BYTE, _BYTE, _BYTE),
            ),
        ),
        published=_published("resnet152"),
        reads=KerasLayout("fc", resnet152_place, bgr="conv1"),
        refuses=_not_resnet152,
    ),
    Backbone(
        "paper:densenet201",
        lambda request: keras_densenet201(request.num_outputs, pretrained=request.download),
        pretrained=True,
        cuts={
            "paper:1": Cut("paper:1", taps=("features.transition1.pool",)),
            "paper:2": Cut("paper:2", taps=("features.transition2.conv",)),
        },
        inputs=(ImagePreprocess(height=_SIDE, width=_SIDE, **_IMAGENET),),
        reads=KerasLayout("classifier", densenet201_place),
    ),
    Backbone(
        "paper:inceptionv3",
        lambda request: keras_inceptionv3(request.num_outputs),
        cuts={
            "paper:1": Cut("paper:1", taps=("Mixed_5c",)),
            "paper:2": Cut("paper:2", taps=("Mixed_5d",)),
        },
        inputs=(ImagePreprocess(height=_SIDE, width=_SIDE),),
        published=_published("inception_v3"),
        reads=KerasLayout("fc"),
        refuses=_not_inceptionv3,
    ),
    Backbone(
        "paper:audiocsrnet",
        _audiocsrnet,
        pretrained=True,
        cuts={
            "V1": Cut("V1", taps=("vgg",)),
            "AV1": Cut("AV1", taps=("vgg", "vggish")),
            "AV2": Cut("AV2", taps=("fuse.0",)),
        },
        inputs=(ImagePreprocess(height=576, width=1024, **_DISCO), VGGISH),
        reads=front_ends,
    ),
)
