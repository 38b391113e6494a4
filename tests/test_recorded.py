"""The smallest recorded numbers, measured again and compared with `data/results`.

Chosen are rows that no training stands behind, only embedded checkpoints and generated or counted things: another
version of torch rounds differently, and training would turn that into other networks. Curves, tickets and retrained
cuts are left to the commands in their rows.
"""

import re

import pandas as pd
import pytest

from course_lib import cost, datasets, models, oracle
from course_lib.classroom import results, update_budget


@pytest.mark.parametrize("name, classes, width", [("petals", 10, 0.25), ("flowers102", 102, 1.0)])
def test_sizes_of_the_whole_network(name, classes, width):
    """Counted, so equal to the last digit: the networks with which the recorded pruning curves begin."""
    whole = results.read(f"{name}_pruning").query("number == 0 and curve != 'scratch'")
    size = int((re.search(r"image_size=(\d+)", whole.command.iloc[0]) or [0, 32])[1])
    network, shape = models.vgg16(classes, width=width, compact=True), (3, size, size)
    counted = [cost.feature_maps(network), cost.macs(network, shape), cost.parameters(network)]
    assert whole[["maps_left", "macs", "params"]].drop_duplicates().to_numpy().tolist() == [counted]


def test_the_oracle_of_some_maps_on_all_training_images():
    """One pass over 5,000 images up to the last layer, then four maps: float32 sums, so five digits of the largest."""
    recorded = results.read("petals_oracle").query("layer == 'features.28' and map < 4")
    splits = datasets.load("petals", train=5000, val=10, test=10)
    found = oracle.ablate(
        models.trained("vgg16-petals"), datasets.batches(splits.train, 5000, seed=0), {"features.28": [0, 1, 2, 3]}
    )
    scale = recorded.change.abs().max()
    assert found["features.28"][:4].numpy() == pytest.approx(recorded.change.to_numpy(), abs=1e-5 * scale + 1e-8)


def test_the_small_alexnets_row_of_table_1():
    """All 288 maps on 256 images: ranks may change places where two maps are equal to rounding, hence 0.01."""
    recorded = results.read("alexnet_criteria").query("seed == 0").set_index("criterion")
    splits = datasets.load("petals", seed=0, train=5000, test=1500)
    table = update_budget.table1(models.trained("alexnet-petals"), splits, int(recorded.images.iloc[0]), 0)
    found = pd.DataFrame(table).set_index("criterion")
    names = ["taylor", "activation_mean", "activation_std", "apoz", "min_weight", "l1_norm"]  # without random numbers
    for column in ("mean_of_layers", "all_layers", "all_layers_l2"):
        assert found.loc[names, column].to_dict() == pytest.approx(recorded.loc[names, column].to_dict(), abs=0.01)
