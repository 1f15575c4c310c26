"""Exits on the shipped network: cut, train branches, compare, leave early on one picture.

python examples/01_quickstart.py
"""

import torch

import offramp as orp
from offramp.backbones.zoo import build
from offramp.data import FashionMNIST

# A few of the shipped images keep this short; `offramp demo` uses all of them.
data = FashionMNIST(limit=300).load()
network = build("offramp:demo")

backbone = orp.cut(network, after=["blocks.2.1", "blocks.4.1"], sample=data.test[0][0][None])
total_flops = sum(backbone.stage_flops())
print(f"{total_flops / 1e6:.0f} MFLOPs in stages of {backbone.stage_flops()}")

vit = {"dim": 16, "heads": 4, "standardise": True}
model = orp.fit_branches(
    backbone,
    {
        "blocks.2.1": [orp.SLViT(patch=2, **vit), orp.ConvBranch(standardise=True)],
        "blocks.4.1": [orp.SLViT(patch=1, **vit), orp.ConvBranch(standardise=True)],
    },
    data.train,
    data.validation,
    seeds=range(2),
    epochs=10,
    lr=1e-3,
)
for trial in model.trials:
    print(f"{trial.cut} {trial.spec.kind} seed {trial.seed}: {trial.validation_score:.1%} valid.")

outputs = model.collect(data.test)
print(orp.tradeoff(outputs))

# A stage runs only when the next exit is asked for. The threshold 0.9 is an example, no promise.
image, label = data.test[0]
with torch.inference_mode():
    for name, answer in model.walk(image[None]):
        surest, guess = answer.softmax(-1).max(-1)
        print(f"{name}: {data.target_names[int(guess)]}, {float(surest):.0%} sure")
        if surest >= 0.9:
            break
print(f"it is: {data.target_names[label]}")
