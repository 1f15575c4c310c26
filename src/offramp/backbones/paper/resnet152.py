"""ResNet152 as Keras has it (v1), the form behind the paper's figures; torchvision has another."""

from torch import Tensor, nn

from offramp.backbones.top import dense_top

_BLOCKS = (3, 8, 36, 3)
_EPSILON = 1.001e-5


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with bias; the first 1x1 strides (torchvision: the 3x3)."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, stride)
        self.bn1 = nn.BatchNorm2d(width, _EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width, _EPSILON)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width, _EPSILON)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width, _EPSILON)
            )
            if project
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 * width, H / stride, W / stride)."""
        shortcut = self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        added: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return added


class KerasResNet152(nn.Module):
    """Keras's `ResNet152` with torchvision's module names.

    Without `num_outputs` it ends in Keras's 1000 classes: 60,268,520 trainable parameters. With
    it, in the paper's top.

    Shape:
        images (B, 3, H, W) -> logits (B, num_outputs).
    """

    def __init__(self, num_outputs: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64, _EPSILON)
        self.relu = nn.ReLU(inplace=True)
        self.pad = nn.ZeroPad2d(1)
        self.maxpool = nn.MaxPool2d(3, stride=2)
        self.layer1 = _layer(64, 64, _BLOCKS[0], stride=1)
        self.layer2 = _layer(256, 128, _BLOCKS[1], stride=2)
        self.layer3 = _layer(512, 256, _BLOCKS[2], stride=2)
        self.layer4 = _layer(1024, 512, _BLOCKS[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(2048, 1000) if num_outputs is None else dense_top(2048, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Classify a batch of images."""
        x = self.maxpool(self.pad(self.relu(self.bn1(self.conv1(images)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def _layer(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, project=True)
    rest = (Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
