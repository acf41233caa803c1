from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.core.errors import DataError
from danlu.core.seeds import Seeds
from danlu.model.base import Signature
from danlu.model.families import FAMILIES
from danlu.model.init import initialise
from danlu.model.layers.patches import PatchEmbedding
from danlu.model.module import load_module, save_module

SMALL = {
    "cnn": {"channels": [4, 6], "n_blocks": 1},
    "mlp": {"d_model": 16, "n_layers": 2},
    "vit": {"patch_size": 4, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24},
}
DIAL = {"tiny": (1, 28, 28), "small": (3, 64, 64), "base": (3, 224, 224)}
SIGNATURE = Signature(task="image-classification", n_classes=3, image_size=(2, 8, 12))

every_family = pytest.mark.parametrize("family", sorted(SMALL))


def module_of(family, signature=SIGNATURE, seed="1", **changes):
    config = FAMILIES[family].Config(family=family, **(SMALL[family] | changes))
    module = FAMILIES[family](config, signature)
    initialise(module, Seeds.new(seed))
    return module


def batch_of(n=5, size=(2, 8, 12), seed=0):
    images = np.random.default_rng(seed).random((n, *size), np.float32)
    return Batch(rows_B=torch.arange(n), images_BCYX=torch.from_numpy(images), labels_B=torch.arange(n) % 3)


def seasoned(module):
    """After some steps, so that no running statistic and no bias is what it was made as."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    module.train()
    for seed in range(3):
        batch = batch_of(seed=seed)
        optimizer.zero_grad()
        torch.autograd.backward(module.loss(module(batch), batch))
        optimizer.step()
    return module.eval()


def normed(values, norm, axis):
    """Batch norm with running statistics, in its own formula."""
    weight, bias, mean, variance = (
        each.detach().double().numpy() for each in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    scale = weight / np.sqrt(variance + norm.eps)
    return (values - mean.reshape(shape)) * scale.reshape(shape) + bias.reshape(shape)


def convolved(images, layer):
    """Every window of the padded pictures times the kernel."""
    kernel = layer.weight.detach().double().numpy()
    side, pad, stride = kernel.shape[-1], layer.padding[0], layer.stride[0]
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(padded, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bcyxij,ocij->boyx", windows, kernel)


def residual(images, block):
    x = np.maximum(normed(convolved(images, block.first), block.first_norm, 1), 0)
    return np.maximum(images + normed(convolved(x, block.second), block.second_norm, 1), 0)


def linear(values, layer):
    return values @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()


def scaled(batch):
    return batch.images_BCYX.double().numpy() * 2 - 1


def test_the_cnn_is_what_its_papers_say():
    module, batch = seasoned(module_of("cnn")), batch_of(seed=9)
    x = convolved(scaled(batch), module.stem[0])
    x = x.reshape(5, 4, 4, 2, 6, 2).max((3, 5))  # pooled
    x = np.maximum(normed(x, module.stem[2], 1), 0)
    blocks, (halving, halving_norm, _), more_blocks = module.stages
    for block in blocks:
        x = residual(x, block)
    x = np.maximum(normed(convolved(x, halving), halving_norm, 1), 0)
    for block in more_blocks:
        x = residual(x, block)
    assert x.shape == (5, 6, 2, 3)
    expected = linear(x.mean((2, 3)), module.head.linear)
    # float32 against float64 on logits of about 1; measured over 20 seeds: 3e-7.
    np.testing.assert_allclose(module(batch).logits.detach(), expected, atol=3e-6)


def test_the_mlp_is_what_it_says():
    module, batch = seasoned(module_of("mlp")), batch_of(seed=9)
    x = scaled(batch).reshape(5, -1)
    for layer in module.layers:
        x = np.maximum(normed(linear(x, layer[0]), layer[1], 1), 0)
    # As above; measured over 20 seeds: 4e-7.
    np.testing.assert_allclose(module(batch).logits.detach(), linear(x, module.head.linear), atol=3e-6)


def torch_vit(module, images):
    """The same from torch's own encoder layers; gradients flow into the module's weights."""
    patches = F.unfold(images * 2 - 1, 4, stride=4).transpose(1, 2)
    x = F.linear(patches, module.patches.project.weight.flatten(1), module.patches.project.bias)
    x = x + module.patches.positions.vectors.weight
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    for block in module.blocks:
        attention = block.attention
        weights = {
            "self_attn.in_proj_weight": torch.cat([each.weight for each in (attention.q, attention.k, attention.v)]),
            "self_attn.in_proj_bias": torch.cat([each.bias for each in (attention.q, attention.k, attention.v)]),
        }
        for ours, theirs in [
            (attention.out, "self_attn.out_proj"),
            (block.feedforward.up, "linear1"),
            (block.feedforward.down, "linear2"),
            (block.attention_norm, "norm1"),
            (block.feedforward_norm, "norm2"),
        ]:
            weights |= {f"{theirs}.weight": ours.weight, f"{theirs}.bias": ours.bias}
        x = torch.func.functional_call(layer, weights, x)
    return module.head.linear(module.norm(x).mean(1))


def test_the_vit_is_that_of_torchs_own_layers_forward_and_backward():
    module, batch = seasoned(module_of("vit")), batch_of(seed=9)
    ours, theirs = module(batch).logits, torch_vit(module, batch.images_BCYX)
    # Sums in another order. Measured over 20 seeds: 8e-7 forward, where logits reach 2.4; 4e-6 backward, where
    # gradients reach 11.
    torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=0)
    parameters = dict(module.named_parameters())
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    mine, other = (torch.autograd.grad((each * weights).sum(), list(parameters.values())) for each in (ours, theirs))
    for name, a, b in zip(parameters, mine, other, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_patches_come_row_by_row_each_with_its_own_place():
    embedding = PatchEmbedding((1, 4, 6), 2, 4)
    initialise(embedding, Seeds.new("1"))
    with torch.no_grad():
        embedding.project.weight.copy_(torch.eye(4).reshape(4, 1, 2, 2))
        places = embedding.positions.vectors.weight
        found = embedding(torch.arange(24.0).reshape(1, 1, 4, 6)) - places
    assert len({tuple(place) for place in places.tolist()}) == 6
    torch.testing.assert_close(found[0, 1], torch.tensor([2.0, 3.0, 8.0, 9.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0, 3], torch.tensor([12.0, 13.0, 18.0, 19.0]), atol=1e-5, rtol=0)


@every_family
def test_gradients_reach_every_parameter(family):
    module, batch = module_of(family).train(), batch_of()
    output = module(batch)
    assert output.logits.shape == (5, 3)
    torch.autograd.backward(module.loss(output, batch))
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@every_family
def test_a_saved_model_answers_raw_pictures_with_the_same_bits(tmp_path, family):
    module, batch = seasoned(module_of(family)), batch_of(seed=9)
    save_module(tmp_path, module)
    again = load_module(tmp_path).eval()
    stored, loaded = module.state_dict(), again.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    assert torch.equal(again(batch).logits, module(batch).logits)


@pytest.mark.parametrize("family", ["cnn", "mlp"])
def test_running_statistics_are_learnt_and_kept(family):
    before, after = module_of(family).state_dict(), seasoned(module_of(family)).state_dict()
    statistics = [name for name in before if "running_" in name]
    assert statistics
    for name in statistics:
        assert not torch.equal(before[name], after[name]), name
        assert bool((before[name] == (1 if name.endswith("var") else 0)).all())


@every_family
def test_a_picture_is_answered_alike_alone_and_among_others(family):
    module, batch = seasoned(module_of(family)), batch_of(seed=9)
    together = module(batch).logits
    for row in range(5):
        alone = module(replace(batch, images_BCYX=batch.images_BCYX[row : row + 1])).logits[0]
        # A product of another shape sums in another order; measured over 20 seeds: 4e-7.
        torch.testing.assert_close(together[row], alone, atol=3e-6, rtol=0)


@every_family
@pytest.mark.parametrize("size", [(2, 8, 8), (2, 12, 8), (1, 8, 12)])
def test_a_picture_of_another_size_is_refused_in_words(family, size):
    words = " x ".join(map(str, size))
    with pytest.raises(DataError, match=f"takes pictures of 2 x 8 x 12, not {words}") as found:
        module_of(family)(batch_of(size=size))
    assert found.value.where == "pictures"
    assert "train a model on pictures of this size" in found.value.advice


@every_family
def test_what_cannot_be_made_is_refused(family):
    with pytest.raises(ValueError, match="the signature has none"):
        module_of(family, Signature(task="image-classification", n_classes=3))
    with pytest.raises(ValueError, match=f"a {family} is not trained for text-classification"):
        module_of(family, replace(SIGNATURE, task="text-classification"))


@pytest.mark.parametrize("patch_size", [3, 8, 5])
def test_patches_that_do_not_fill_the_picture_are_refused_with_both_numbers(patch_size):
    with pytest.raises(ValueError, match=f"patch_size={patch_size} does not divide pictures of 8 x 12 pixels"):
        module_of("vit", patch_size=patch_size)


def test_heads_that_do_not_fit_are_refused_before_anything_is_built():
    with pytest.raises(ValueError, match="d_model=16 is not a multiple of n_heads=3"):
        module_of("vit", n_heads=3)


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 7, 5), (2, 9, 16)])
def test_pictures_of_any_shape_go_through_the_cnn_and_the_mlp(size):
    for family in ("cnn", "mlp"):
        module = module_of(family, replace(SIGNATURE, image_size=size)).eval()
        assert bool(torch.isfinite(module(batch_of(size=size)).logits).all())


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_cnn_works_channels_last_also_on_pictures_with_one_channel(n_channels):
    size = (n_channels, 8, 12)
    module, seen = module_of("cnn", replace(SIGNATURE, image_size=size)), []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _given, made: seen.append(made))
    module(batch_of(size=size))
    assert len(seen) == 6
    assert all(made.is_contiguous(memory_format=torch.channels_last) for made in seen)
    # Weights stay as they are saved, so that an optimizer's state read from a checkpoint lies in memory as they do.
    assert all(parameter.is_contiguous() for parameter in module.parameters())


@every_family
def test_it_runs_in_bfloat16(family):
    module, batch = seasoned(module_of(family)), batch_of(seed=9)
    exact = module.loss(module(batch), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.loss(module(batch), batch)
    torch.autograd.backward(loss)
    assert loss.dtype == torch.float32
    # bfloat16 keeps 8 bits of a number, and logits are about 1; measured over 20 seeds: 2.4e-3 at most.
    torch.testing.assert_close(loss, exact, atol=1e-2, rtol=0)


@every_family
def test_it_is_one_graph_for_the_compiler(family):
    module, batch = seasoned(module_of(family)), batch_of(seed=9)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch).logits, module(batch).logits, atol=3e-6, rtol=0)


@every_family
@pytest.mark.parametrize("size", sorted(DIAL))
def test_every_size_of_the_dial_can_be_built(family, size):
    config_class = FAMILIES[family].Config
    config = config_class(family=family, size=size, **config_class.sizes[size]["model"])
    with torch.device("meta"):
        module = FAMILIES[family](config, replace(SIGNATURE, image_size=DIAL[size]))
    assert module.n_parameters() > 0


@every_family
def test_it_learns_which_side_is_bright(family):
    rng = np.random.default_rng(0)
    images, labels = rng.random((60, 2, 8, 12), np.float32) / 2, rng.integers(0, 3, 60)
    for image, label in zip(images, labels, strict=True):
        image[:, :, 4 * label : 4 * label + 4] += 0.4
    batch = Batch(
        rows_B=torch.arange(60),
        images_BCYX=torch.from_numpy(images),
        labels_B=torch.from_numpy(labels.astype(np.int64)),
    )
    module = module_of(family).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(module.loss(module(batch), batch))
        optimizer.step()
    assert (module.eval()(batch).logits.argmax(1) == batch.labels_B).float().mean() > 0.9
