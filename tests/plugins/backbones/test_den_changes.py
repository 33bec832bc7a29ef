"""den: what it does to weights, against slow references and on nets made by hand."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from lwmfw_plugins.backbones.den._changes import (
    distance,
    drift,
    put_back,
    reachable,
    shrink,
    shrink_units,
    with_copies,
    without_dead,
)
from lwmfw_plugins.backbones.den._network import ExpandableNetwork

AMOUNTS = pytest.mark.parametrize("amount", [0.0, 0.3, 0.9, 5.0])


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def network(*expansions, widths=(3, 4, 5)):
    """One of three layers with biases that it could have after training, and so many units in each layer more."""
    made, rng = ExpandableNetwork(2, widths).double(), torch.Generator().manual_seed(1)
    for units in expansions:
        made.add_step()
        made.expand(units, rng)
    for name, value in made.named_parameters():
        if "biases" in name:
            torch.nn.init.normal_(value, std=0.3)
    return made.double().requires_grad_(False)


def drifted(net, every):
    """The same network after a step has moved every so manieth unit of each layer, and what it was before."""
    net.add_step()
    before = copy.deepcopy(net)
    for layer in net.layers():
        for weight, bias in layer[:-1]:
            weight[::every] += 0.1 * torch.randn_like(weight[::every])
            bias[::every] += 0.1
    return net, before


# the network


def test_features_are_those_of_convolutions_whose_units_read_no_younger_ones():
    net, images = network(2, 1), normal(2, 2, 9, 9)
    x = images
    for number, layer in enumerate(net.layers()):
        weight = torch.zeros(sum(len(bias) for _, bias in layer), x.shape[1], 3, 3, dtype=torch.float64)
        first = 0
        for rows, _ in layer:
            weight[first : first + len(rows), : rows.shape[1]] = rows
            first += len(rows)
        x = torch.nn.functional.max_pool2d(x, 2, ceil_mode=True) if number else x
        x = torch.nn.functional.conv2d(x, weight, torch.cat([bias for _, bias in layer]), padding=1).relu()
    # layers list their units by age, and so do features
    order = [net.widths[i] for i in range(3)]
    assert order == [6, 7, 8]
    out = net(images)
    assert_close(out.features, x.mean((2, 3)))
    assert_close(out.pooled.mean((2, 3)), out.features)


def test_added_units_change_no_bit_of_the_features_there_were():
    net, images = network(2).float(), torch.randn(4, 2, 8, 8)
    before = net(images).features
    net.add_step()
    assert torch.equal(net(images).features, before)
    net.expand(3, torch.Generator().manual_seed(2))
    after = net(images).features
    assert after.shape[1] == before.shape[1] + 3
    assert torch.equal(after[:, : before.shape[1]], before)


def test_a_step_can_have_units_in_some_layers_alone():
    net, images = network(), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    net.add_step()
    net.newest.take([normal(0, 2, 3, 3), normal(1, 3, 3, 3), normal(2, 5, 3, 3)], [normal(n) for n in (0, 1, 2)])
    assert net.widths == [3, 5, 7]
    assert net(images).features.shape == (2, 7)
    assert net(images[:, :, :1, :1]).features.isfinite().all()


def test_a_fresh_network_takes_the_shapes_of_any_state():
    net, images = network(2, 0, 3), normal(2, 2, 8, 8)
    fresh = ExpandableNetwork(2, (3, 4, 5)).double()
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(images).features, net(images).features)
    assert torch.equal(copy.deepcopy(fresh)(images).features, net(images).features)


# shrinking


@AMOUNTS
def test_shrinking_brings_every_weight_nearer_to_zero_and_never_beyond(amount):
    weight = normal(4, 5)
    expected = [math.copysign(max(abs(w) - amount, 0), w) for w in weight.flatten().tolist()]
    shrink(weight, amount)
    assert weight.flatten().tolist() == pytest.approx(expected)


@AMOUNTS
def test_shrinking_units_takes_the_amount_off_the_length_of_each(amount):
    weight, bias = 0.2 * normal(6, 2, 3, 3), 0.2 * normal(6)
    weight[3], bias[3] = 0, 0
    before = [[*weight[i].flatten().tolist(), float(bias[i])] for i in range(6)]
    shrink_units(weight, bias, amount)
    for i, values in enumerate(before):
        length = math.sqrt(sum(v * v for v in values))
        factor = max(length - amount, 0) / length if length else 0
        assert [*weight[i].flatten().tolist(), float(bias[i])] == pytest.approx([factor * v for v in values])


# what learns


def test_the_units_that_are_retrained_are_those_that_the_head_is_reached_from():
    # image -> a0 a1 a2 -> b0 b1 -> head; b0 reads a0, b1 reads a1 and a2; unit c of a later step reads a2 and b0
    first, second = torch.zeros(3, 1, 3, 3), torch.zeros(2, 3, 3, 3)
    second[0, 0, 1, 1], second[1, 1, 0, 2], second[1, 2, 2, 2] = 1.0, -2.0, 3.0
    later = torch.zeros(1, 3, 3, 3)
    later[0, 2, 0, 0] = 0.5

    def selected(*head):
        return [mask.tolist() for mask in reachable([[first], [second, later]], torch.tensor([head]))]

    assert selected(0.0, 0.0, 0.0) == [[False] * 3, [False] * 3]
    assert selected(1.0, 0.0, 0.0) == [[True, False, False], [True, False, False]]
    assert selected(0.0, -1.0, 0.0) == [[False, True, True], [False, True, False]]
    assert selected(0.0, 0.0, 1e-9) == [[False, False, True], [False, False, True]]
    assert selected(1.0, 0.0, 1.0) == [[True, False, True], [True, False, True]]


def test_drift_and_distance_are_norms_of_all_that_goes_into_a_unit():
    now, before = network(), network()
    for value in now.parameters():
        value += 0.1 * torch.randn_like(value)
    total = 0.0
    for layer, layer_before in zip(now.layers(), before.layers(), strict=True):
        (weight, bias), (weight_before, bias_before) = layer[0], layer_before[0]
        for i, actual in enumerate(drift(weight, bias, weight_before, bias_before).tolist()):
            moves = [*(weight[i] - weight_before[i]).flatten().tolist(), float(bias[i] - bias_before[i])]
            assert actual == pytest.approx(math.sqrt(sum(m * m for m in moves)))
            total += sum(m * m for m in moves)
    assert distance(now, before).item() == pytest.approx(total)


# removal


def test_units_that_are_zero_are_removed_and_no_output_changes():
    net, images, head = network(3), normal(2, 2, 8, 8), normal(2, 8)
    for layer, dead in ((0, [1]), (1, []), (2, [0, 2])):
        net.newest.weights[layer][dead], net.newest.biases[layer][dead] = 0, 0
    net.newest.weights[2][1] = 0  # its bias is not zero: it lives
    before = net(images).features @ head.T
    weights, biases = without_dead([*net.newest.weights, head], list(net.newest.biases))
    net.newest.take(weights[:-1], biases)
    assert [len(bias) for bias in biases] == [2, 3, 1]
    assert_close(net(images).features @ weights[-1].T, before)


def test_all_new_units_can_be_removed():
    net, head = network(2), normal(2, 7)
    for value in net.newest.parameters():
        value.zero_()
    weights, biases = without_dead([*net.newest.weights, head], list(net.newest.biases))
    assert [weight.shape[0] for weight in weights[:-1]] == [len(bias) for bias in biases] == [0, 0, 0]
    assert torch.equal(weights[-1], head[:, :5])


# splitting


def test_a_split_gives_the_drifted_units_back_their_old_weights_to_the_bit_and_leaves_the_others():
    net, before = drifted(network(2), every=2)
    now = copy.deepcopy(net)
    sides = zip(put_back(net, before, 0.45), net.layers(), now.layers(), before.layers(), strict=True)
    for (units, weights, biases), layer, layer_now, layer_before in sides:
        first, seen = 0, 0
        for (weight, bias), new, old in zip(layer[:-1], layer_now, layer_before, strict=False):
            for row, far in enumerate((drift(*new, *old) > 0.45).tolist()):
                assert torch.equal(weight[row], (old if far else new)[0][row])
                assert torch.equal(bias[row], (old if far else new)[1][row])
                if far:
                    assert units[seen] == first + row
                    assert torch.equal(weights[seen, : weight.shape[1]], new[0][row])
                    assert not weights[seen, weight.shape[1] :].any()
                    assert biases[seen] == new[1][row]
                    seen += 1
            first += len(bias)
        assert 0 < seen == len(units) < first


def test_where_every_unit_is_split_old_features_are_as_before_and_the_new_step_computes_what_it_did():
    net, before = drifted(network(2), every=1)
    images, head = normal(2, 2, 8, 8), normal(2, 7)
    now = net(images).features @ head.T
    copies = put_back(net, before, 0.0)
    assert torch.equal(net(images).features, before(images).features)
    weights, biases = with_copies([*net.newest.weights, head], list(net.newest.biases), copies)
    net.newest.take(weights[:-1], biases)
    features = net(images).features
    assert torch.equal(features[:, :7], before(images).features)
    assert_close(features @ weights[-1].T, now)
