"""ResNet-18 and ResNet-50: their shapes, sizes and outputs."""

from __future__ import annotations

import pytest
import torch

from rounds.core.errors import BadOverride
from rounds.core.specs import ModelSpec
from rounds.nets.names import build
from rounds.nets.weights import load_weights, save_weights


def images(n: int = 4, channels: int = 1, size: int = 28) -> torch.Tensor:
    return torch.randint(
        0, 256, (n, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize(
    ("name", "weights"),
    # The published counts are 11,689,512 and 25,557,032, with three colours and 1,000 classes.
    [("resnet18", 11_689_512), ("resnet50", 25_557_032)],
)
def test_they_have_the_published_number_of_weights(name: str, weights: int):
    net = build(ModelSpec(name), channels=3, classes=1000, size=224)
    assert sum(p.numel() for p in net.parameters()) == weights


@pytest.mark.parametrize(
    ("name", "channels", "classes", "size", "d", "side"),
    [
        ("resnet18", 1, 2, 28, 512, 2),
        ("resnet18", 3, 10, 64, 512, 4),
        ("resnet18", 1, 3, 65, 512, 3),
        ("resnet18", 1, 2, 512, 512, 16),
        ("resnet50", 3, 4, 28, 2048, 2),
        ("resnet50", 1, 2, 96, 2048, 3),
    ],
)
def test_every_size_answers_with_logits_embedding_and_activation(name, channels, classes, size, d, side):
    net = build(ModelSpec(name), channels=channels, classes=classes, size=size)
    net.prepare(images(2, channels, size))
    logits, embedding, activation = net.eval()(images(2, channels, size))
    assert (logits.shape, embedding.shape) == ((2, classes), (2, d))
    assert activation.shape == (2, classes, side, side)
    assert {logits.dtype, embedding.dtype, activation.dtype} == {torch.float32}


def test_the_mean_of_an_activation_map_plus_the_bias_is_the_logit():
    net = build(ModelSpec("resnet18"), channels=1, classes=3, size=56).eval()
    logits, _, activation = net(images(size=56))
    assert torch.allclose(activation.mean((2, 3)) + net.head.bias, logits, atol=1e-4)


def test_width_scales_the_channels():
    net = build(ModelSpec("resnet18", width=0.25), channels=1, classes=2, size=28)
    assert net.head.in_features == 128


def test_it_learns_and_comes_back_from_its_file_as_the_same_network(tmp_path):
    torch.manual_seed(0)
    spec = ModelSpec("resnet18", width=0.125)
    net = build(spec, channels=1, classes=2, size=28)
    pixels, labels = images(16), torch.arange(16) % 2
    pixels[labels == 1] //= 2
    net.prepare(pixels)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(net(pixels)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    save_weights(tmp_path / "w.pt", net, spec, channels=1, classes=2, size=28)
    again = load_weights(tmp_path / "w.pt")
    assert all(map(torch.equal, net.eval()(pixels), again(pixels)))


def test_they_have_no_pretrained_weights_and_say_so():
    with pytest.raises(BadOverride) as caught:
        build(ModelSpec("resnet18", pretrained=True), channels=1, classes=2, size=28)
    assert str(caught.value) == (
        "this network cannot be built\n"
        "  model.pretrained: no pretrained weights for this network; expected efficientnet_lite0; got 'resnet18'"
    )
