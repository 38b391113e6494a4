"""Procedural flowers: the same everywhere, independent of each other, told apart by shape only."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from course_lib import petals

# Mean grey level of the images of each of the ten species, over the first 320 of seed 0.
MEANS = [93.688, 87.051, 91.298, 95.313, 87.157, 83.552, 97.937, 90.260, 90.618, 101.674]


def draw(count, species=petals.SPECIES[:10], size=32, seed=0, stream="train"):
    return torch.cat(list(petals.chunks(species, count, size, seed, stream)))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_or_stream_does_not():
    images = draw(20)
    assert images.dtype == torch.uint8 and images.shape == (20, 3, 32, 32)
    assert torch.equal(images, draw(20))
    assert not torch.equal(images, draw(20, seed=1))
    assert not torch.equal(images, draw(20, stream="test"))


def test_an_image_does_not_depend_on_how_many_are_asked_for():
    many = draw(petals.CHUNK + 7)
    for count in (1, petals.CHUNK - 1, petals.CHUNK, petals.CHUNK + 1):
        assert torch.equal(draw(count), many[:count])


def test_the_number_of_threads_changes_nothing_and_is_left_as_it_was():
    before, images = torch.get_num_threads(), {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            images[threads] = draw(petals.CHUNK + 3, size=33)  # 33: no multiple of any vector's length
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(images[1], images[2])


def test_the_pictures_are_those_that_checkpoints_were_trained_on():
    means = draw(320).double().mean(dim=(1, 2, 3)).view(-1, 10).mean(dim=0)
    torch.testing.assert_close(means, torch.tensor(MEANS, dtype=torch.float64), atol=0.01, rtol=0)


def test_a_processor_without_vector_instructions_draws_the_same_to_one_grey_level(tmp_path):
    code = (
        "import numpy, torch; from course_lib import petals;"
        "images = torch.cat(list(petals.chunks(petals.SPECIES, 192, 32, 0, 'train')));"
        f"numpy.save({str(tmp_path / 'plain.npy')!r}, images.numpy())"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "ATEN_CPU_CAPABILITY": "default"}, check=True)
    difference = np.abs(np.load(tmp_path / "plain.npy").astype(int) - draw(192, petals.SPECIES).numpy())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_there_are_twenty_named_species_no_two_of_them_of_the_same_shape():
    assert len({species.name for species in petals.SPECIES}) >= 20
    shapes = {tuple(vars(species).values())[1:] for species in petals.SPECIES}
    assert len(shapes) == len(petals.SPECIES)
    assert {species.centre for species in petals.SPECIES} == set(petals.CENTRES)


def test_a_world_of_species_can_be_made_larger_without_changing():
    world = petals.world(96)
    assert world[:10] == petals.world(10)
    assert len(set(world)) == 96
    for species in world:
        assert 3 <= species.petals <= 20 and 1 <= species.layers <= 3 and species.centre in petals.CENTRES


def test_two_species_differ_in_the_flower_only():
    dice = [petals.Dice(range(64), 0, "train", 3 * 32 * 32) for _ in range(2)]
    a, b = (petals.render([petals.SPECIES[k]] * 64, d, 32).int() for k, d in zip((0, 8), dice, strict=True))
    changed = (a != b).any(dim=1).float().mean(dim=0)
    assert changed[8:24, 8:24].mean() > 0.3  # where flowers are
    assert changed[:3, :3].max() < 0.05  # in the corner: background, the same


@pytest.mark.parametrize("count", [5, 8, 13])
def test_a_flower_seen_from_the_front_has_as_many_petals_as_its_species_says(count):
    species = petals.Species("test", count, 1, 0.5, 0.7, 0.7, 0.0, 0.0, "disc", 0.1)
    form = petals._table([species])
    line = torch.linspace(-torch.pi, torch.pi, 20_001)[:-1].view(1, 1, -1)
    around = torch.full_like(line, 0.5)
    pose = petals.SimpleNamespace(r=around, angle=line, spin=torch.tensor(0.3))
    edge = petals._petal(form, pose, 0, 1.0, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)).edge.flatten()
    inside = edge > 0
    assert (inside & ~inside.roll(1)).sum() == count


def test_a_picture_uses_no_more_random_numbers_than_it_has():
    dice = petals.Dice(range(2), 0, "train", 3 * 16 * 16)
    petals.render(petals.SPECIES[:2], dice, 16)
    assert dice._used <= petals.DICE
