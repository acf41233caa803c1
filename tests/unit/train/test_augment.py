from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from danlu.train.augment import AugmentConfig, augment, matrices, warp

EVERYTHING = AugmentConfig(shift=0.1, rotate=15, scale=0.2, shear=0.2, bend=0.05, flip_left_right=True)
STILL = np.eye(2, 3)


def pictures(n=3, channels=2, height=14, width=20, seed=0):
    """Smooth random pictures: what lies between two pixels is then no matter of taste."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(ndimage.gaussian_filter(rng.random((n, channels, height, width)), (0, 0, 1, 1))).float()


def by_scipy(picture, places_2YX):
    """Every channel looked up at places (y, x), counted from the first pixel."""
    found = [ndimage.map_coordinates(each, places_2YX, order=1, mode="nearest") for each in picture.double().numpy()]
    return np.stack(found)


def places(matrix_23, height, width):
    """Where each pixel of the new picture looks: the matrix's own words, one pixel at a time."""
    found = np.zeros((2, height, width))
    for y in range(height):
        for x in range(width):
            from_middle = np.array([x - (width - 1) / 2, y - (height - 1) / 2, 1.0])
            old_x, old_y = matrix_23 @ from_middle
            found[:, y, x] = old_y + (height - 1) / 2, old_x + (width - 1) / 2
    return found


def one_draw(**drawn):
    names = ["shift_x", "shift_y", "turn", "scale_x", "scale_y", "shear", "left_right", "up_down"]
    return np.array([[drawn.get(name, 0.0) for name in names]])


def test_with_everything_off_the_very_same_tensor_comes_back_and_nothing_is_drawn():
    images, generator = pictures(), np.random.default_rng(1)
    assert augment(images, AugmentConfig(), generator) is images
    assert generator.random() == np.random.default_rng(1).random()


def test_a_whole_number_of_pixels():
    images = pictures()
    shifted = np.array([STILL, STILL, STILL])
    shifted[0, 0, 2], shifted[1, 1, 2] = 3, -2
    found = warp(images, shifted)
    # Places are float32 shares of the side, which is off by 1e-6 pixels. Measured: 1.2e-7.
    torch.testing.assert_close(found[0, :, :, :-3], images[0, :, :, 3:], atol=2e-6, rtol=0)
    torch.testing.assert_close(found[1, :, 2:], images[1, :, :-2], atol=2e-6, rtol=0)
    torch.testing.assert_close(found[2], images[2], atol=2e-6, rtol=0)
    # Outside there is more of the edge.
    torch.testing.assert_close(found[0, :, :, -3:], images[0, :, :, -1:].expand(-1, -1, 3), atol=2e-6, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_any_affine_move_is_that_of_scipy_also_where_pictures_are_not_square(seed):
    rng = np.random.default_rng(seed)
    images = pictures(seed=seed)
    moves = STILL + rng.normal(size=(3, 2, 3)) * [0.3, 0.3, 2.0]
    found = warp(images, moves)
    for picture, move, moved in zip(images, moves, found, strict=True):
        expected = by_scipy(picture, places(move, 14, 20))
        np.testing.assert_allclose(moved, expected, atol=2e-6)  # measured over 40 seeds: 6e-7, float32 places again


def test_a_bend_moves_the_place_to_look_at_besides():
    images, rng = pictures(1), np.random.default_rng(3)
    move, bend = STILL + rng.normal(size=(1, 2, 3)) * 0.1, rng.normal(size=(1, 2, 4, 4))
    found = warp(images, move, torch.from_numpy(bend))
    smooth = torch.nn.functional.interpolate(torch.from_numpy(bend), (14, 20), mode="bicubic", align_corners=True)
    bent = places(move[0], 14, 20) + smooth[0].numpy()[::-1]
    np.testing.assert_allclose(found[0], by_scipy(images[0], bent), atol=2e-6)  # measured over 20 seeds: 4e-7


def test_a_bend_is_exact_at_the_points_where_it_was_drawn():
    # An x-ramp shows in its values how far along x each pixel looked.
    ramp = torch.arange(28.0).expand(1, 1, 28, 28)
    bend = torch.zeros(1, 2, 4, 4)
    bend[0, 0, 1, 1] = 3.0
    found = warp(ramp, STILL[None], bend)[0, 0] - ramp[0, 0]
    assert found[9, 9].item() == pytest.approx(3.0, abs=1e-4)
    for y, x in [(0, 0), (0, 9), (18, 9), (9, 18), (27, 27)]:
        assert found[y, x].item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(
    ("config", "draw", "expected"),
    [
        # Worked out by hand: x to the right, y downwards, and the new picture looks there in the old one.
        (AugmentConfig(shift=0.1), {"shift_x": 1.0, "shift_y": -0.5}, [[1, 0, 2.0], [0, 1, -0.7]]),
        (AugmentConfig(rotate=90), {"turn": 1.0}, [[0, -1, 0], [1, 0, 0]]),
        (AugmentConfig(rotate=60), {"turn": -0.5}, [[np.sqrt(0.75), 0.5, 0], [-0.5, np.sqrt(0.75), 0]]),
        (AugmentConfig(scale=0.25), {"scale_x": 1.0, "scale_y": -1.0}, [[0.8, 0, 0], [0, 4 / 3, 0]]),
        (AugmentConfig(shear=0.5), {"shear": 0.5}, [[1, 0.25, 0], [0, 1, 0]]),
        (AugmentConfig(flip_left_right=True), {"left_right": -0.1}, [[-1, 0, 0], [0, 1, 0]]),
        (AugmentConfig(flip_left_right=True), {"left_right": 0.1, "up_down": -1.0}, [[1, 0, 0], [0, 1, 0]]),
        (AugmentConfig(flip_up_down=True), {"up_down": -0.1}, [[1, 0, 0], [0, -1, 0]]),
    ],
)
def test_what_a_draw_means(config, draw, expected):
    np.testing.assert_allclose(matrices(one_draw(**draw), config, (14, 20))[0], expected, atol=1e-12)


def test_about_half_of_the_pictures_are_flipped():
    images = pictures(40)
    found = augment(images, AugmentConfig(flip_left_right=True), np.random.default_rng(0))
    mirrored = images.flip(-1)
    as_it_was = (found - images).abs().amax((1, 2, 3)) < 2e-6
    turned = (found - mirrored).abs().amax((1, 2, 3)) < 2e-6
    assert bool((as_it_was ^ turned).all())
    assert 8 < int(turned.sum()) < 32


def test_a_step_repeats_to_the_bit_and_another_differs():
    images = pictures(8)
    first, again, other = (augment(images, EVERYTHING, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.dtype == torch.float32


def test_one_setting_does_not_change_what_another_draws():
    images = pictures(8)
    turned = AugmentConfig(rotate=20)
    flipped = AugmentConfig(rotate=20, flip_up_down=True)
    one, two = (augment(images, config, np.random.default_rng(5)) for config in (turned, flipped))
    same = (one == two).all(-1).all(-1).all(-1)
    assert 0 < int(same.sum()) < 8


def test_every_picture_has_a_move_of_its_own_and_its_channels_share_it():
    alike = pictures(1, channels=1).expand(5, 2, -1, -1)
    found = augment(alike, EVERYTHING, np.random.default_rng(0))
    assert torch.equal(found[:, 0], found[:, 1])
    assert len({tuple(picture.flatten().tolist()) for picture in found}) == 5


def test_values_stay_within_those_of_the_picture():
    images = pictures(30)
    found = augment(images, EVERYTHING, np.random.default_rng(0))
    # A mean of four pixels cannot leave their range, but for rounding.
    assert found.min() >= images.min() - 1e-6
    assert found.max() <= images.max() + 1e-6


@pytest.mark.parametrize("key", ["shift", "rotate", "scale", "shear", "bend"])
def test_an_impossible_strength_is_refused_by_name(key):
    with pytest.raises(ValueError, match=key):
        AugmentConfig(**{key: -0.1})
    with pytest.raises(ValueError, match=key):
        AugmentConfig(**{key: 181})
