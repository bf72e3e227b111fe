"""The small net and its weights file."""

from __future__ import annotations

import pytest
import torch

from rounds.core.errors import BadOverride, UnknownId, WorldFault
from rounds.core.specs import ModelSpec
from rounds.nets.names import build
from rounds.nets.weights import load_weights, save_weights


def images(n: int = 8, channels: int = 1, size: int = 28) -> torch.Tensor:
    """Films with the smoothness of films: noise blurred over neighbours."""
    noise = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 5
    return (smooth * 40 + 128).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("channels", "classes", "size", "side"),
    [(1, 2, 28, 3), (3, 10, 32, 3), (1, 3, 64, 7), (3, 2, 65, 4), (3, 2, 224, 7)],
)
def test_every_size_answers_with_logits_embedding_and_activation(channels, classes, size, side):
    net = build(ModelSpec(), channels=channels, classes=classes, size=size)
    net.prepare(images(4, channels, size))
    logits, embedding, activation = net.eval()(images(4, channels, size))
    assert (logits.shape, embedding.shape, activation.shape) == ((4, classes), (4, 64), (4, classes, side, side))
    assert {logits.dtype, embedding.dtype, activation.dtype} == {torch.float32}


def test_bytes_and_floats_of_the_same_value_get_the_same_answer():
    net = build(ModelSpec(), channels=1, classes=2, size=28).eval()
    assert torch.equal(net(images())[0], net(images().float())[0])


def test_the_activation_is_the_class_weights_over_the_last_feature_map():
    net = build(ModelSpec(), channels=1, classes=3, size=28).eval()
    logits, embedding, activation = net(images())
    assert torch.allclose(logits, net.head(embedding))
    features = net.groups(net.gelu(net.whiten((images().float() - net.mean) / net.std)))
    by_hand = torch.einsum("kd,ndhw->nkhw", net.head.weight, features)
    assert torch.allclose(activation, by_hand, atol=1e-5)
    assert torch.allclose(activation.mean((2, 3)) + net.head.bias, logits, atol=1e-5)


@pytest.mark.parametrize(("channels", "size", "eigenvectors"), [(1, 28, 4), (3, 28, 12), (1, 224, 12)])
def test_prepared_filters_turn_training_patches_into_uncorrelated_ones_of_unit_spread(channels, size, eigenvectors):
    net = build(ModelSpec(), channels=channels, classes=2, size=size)
    pixels = images(64, channels, size)
    net.prepare(pixels)
    assert torch.allclose(net.mean.flatten(), pixels.float().mean((0, 2, 3)), atol=0.01)
    answers = net.whiten((pixels.float() - net.mean) / net.std)[:, :eigenvectors].transpose(0, 1).flatten(1)
    covariance = answers @ answers.T / answers.shape[1]
    assert torch.allclose(covariance, torch.diag(covariance.diag()), atol=0.01)
    assert covariance.diag().max().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(net.whiten.weight[:eigenvectors], -net.whiten.weight[eigenvectors:])
    assert not net.whiten.weight.requires_grad


def test_images_of_one_gray_prepare_without_a_division_by_zero():
    net = build(ModelSpec(), channels=1, classes=2, size=28)
    net.prepare(torch.full((4, 1, 28, 28), 7, dtype=torch.uint8))
    assert torch.isfinite(net.eval()(images())[0]).all()


def test_width_scales_the_network_and_the_embedding_stays_at_128_or_less():
    sizes = {width: build(ModelSpec(width=width), channels=1, classes=2, size=28) for width in (0.5, 1, 4)}
    counted = {width: sum(p.numel() for p in net.parameters()) for width, net in sizes.items()}
    assert counted[0.5] < counted[1] < counted[4]
    assert sizes[4].head.in_features == 128


def test_it_exports_to_onnx_with_any_batch_and_answers_the_same(tmp_path):
    import onnxruntime

    net = build(ModelSpec(), channels=1, classes=2, size=28)
    net.prepare(images())
    net.eval()
    names = {"input_names": ["pixels"], "output_names": ["logits", "embedding", "activation"]}
    torch.onnx.export(
        net,
        (images(),),
        tmp_path / "m.onnx",
        dynamo=False,
        dynamic_axes={"pixels": {0: "n"}},
        opset_version=17,
        **names,
    )
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for n in (1, 5):
        found = session.run(None, {"pixels": images(n).numpy()})
        for mine, its in zip(net(images(n)), found, strict=True):
            assert torch.allclose(mine, torch.from_numpy(its), atol=1e-4)


def test_what_cannot_be_built_is_refused_with_every_fault():
    with pytest.raises(BadOverride) as caught:
        build(ModelSpec("smoll", width=0), channels=2, classes=1, size=600)
    assert str(caught.value) == (
        "this network cannot be built\n"
        "  model.name: no such network; expected small, resnet18, resnet50, efficientnet_lite0, or timm:NAME; "
        "got 'smoll'. Try 'small'\n"
        "  model.width: the width is impossible; expected over 0, at most 16; got 0\n"
        "  imaging.size: the image size is impossible; expected 28 to 512; got 600\n"
        "  imaging.channels: the number of channels is impossible; expected 1 or 3; got 2\n"
        "  classes: a classifier needs classes; expected 2 or more; got 1"
    )


def test_saved_weights_come_back_as_the_same_network(tmp_path):
    net = build(ModelSpec(width=0.5), channels=3, classes=4, size=32)
    net.prepare(images(8, 3, 32))
    save_weights(tmp_path / "w.pt", net, ModelSpec(width=0.5), channels=3, classes=4, size=32)
    again = load_weights(tmp_path / "w.pt")
    assert not again.training
    assert all(map(torch.equal, net.eval()(images(8, 3, 32)), again(images(8, 3, 32))))
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["w.pt"]


def test_a_missing_or_damaged_weights_file_is_named(tmp_path):
    with pytest.raises(
        UnknownId, match=r"there are no weights\n .*none.pt: no such checkpoint. Train again, or name a"
    ):
        load_weights(tmp_path / "none.pt")
    net = build(ModelSpec(), channels=1, classes=2, size=28)
    path = tmp_path / "w.pt"
    save_weights(path, net, ModelSpec(), channels=1, classes=2, size=28)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[: len(whole) // 2], b"text, not weights", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(
            WorldFault, match=r"the weights cannot be read\n .*w.pt: the checkpoint is not whole; expected"
        ):
            load_weights(path)
