"""Where a run looks: Grad-CAM in closed form against autograd through the map, for every head and read-out."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize
from torch.testing import assert_close

from lwmfw.model.attention import attention_drift
from lwmfw.showing.glances import Glance, looked_at, with_drift
from lwmfw.testing import outputs_pair
from lwmfw.testing.tiny import Head
from lwmfw_plugins.classifiers._heads import CosineHead, LinearHead, ProxyHead
from lwmfw_plugins.readouts._fitted import SumsOptions
from lwmfw_plugins.readouts._sums import Sums
from lwmfw_plugins.readouts.fecam import Fecam, FecamOptions
from lwmfw_plugins.readouts.lda import LdaOptions, LinearDiscriminant
from lwmfw_plugins.readouts.ncm import NearestClassMean
from lwmfw_plugins.readouts.nme import NearestMeanOfExemplars
from lwmfw_plugins.readouts.ridge import Ridge, RidgeOptions
from lwmfw_plugins.readouts.som import SelfOrganisingMap, SomOptions

CLASSES, WIDTH = 4, 6  # of outputs_pair

HEADS = {
    "plain": Head,
    "linear": lambda: LinearHead(WIDTH),
    "cosine": lambda: CosineHead(WIDTH, 2.0),
    "proxies": lambda: ProxyHead(WIDTH, 1.0, proxies=3, scaling=3.0, gamma=1.0, learned_scale=True),
}
FROM_SUMS = {
    "ncm": lambda: NearestClassMean(SumsOptions()),
    "lda": lambda: LinearDiscriminant(LdaOptions()),
    "ridge": lambda: Ridge(RidgeOptions()),
    "ridge-lifted": lambda: Ridge(RidgeOptions(lift=12)),
    "fecam": lambda: Fecam(FecamOptions()),
    "fecam-class": lambda: Fecam(FecamOptions(covariance="class")),
}


def known():
    """Features of 60 images and their classes."""
    rng = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % CLASSES
    centres = torch.rand(CLASSES, WIDTH, generator=rng, dtype=torch.float64)
    return centres[labels] + 0.3 * torch.rand(60, WIDTH, generator=rng, dtype=torch.float64), labels


def read_out(name):
    features, labels = known()
    if name in FROM_SUMS:
        readout = FROM_SUMS[name]()
        sums = Sums.of_images(readout.hidden(features), labels, CLASSES, apart=readout.apart)
        readout.add(sums.state(), range(CLASSES), 1)
    elif name == "nme":
        readout = NearestMeanOfExemplars(None)
        readout.means = normalize(torch.stack([features[labels == c].mean(0) for c in range(CLASSES)]))
    else:
        readout = SelfOrganisingMap(SomOptions(side=3))
        weights = torch.rand(CLASSES, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        readout.restore({"prototypes": normalize(features[:9]), "weights": weights, "width": 0.4})
    return readout.scores


def with_maps(outputs, pooled):
    return replace(outputs, pooled=pooled, features=pooled.mean((2, 3)))


def slowly(outputs, scores, classes):
    """Grad-CAM as it is written: by autograd through the map, image after image."""
    found = []
    for pooled, label in zip(outputs.pooled.detach(), classes.tolist(), strict=True):
        maps = pooled[None].requires_grad_()
        (gradient,) = torch.autograd.grad(scores(maps.mean((2, 3)))[0, label], maps)
        seen = (gradient.mean((2, 3))[0, :, None, None] * pooled).sum(0).relu()
        found.append(seen / seen.norm())
    return torch.stack(found).nan_to_num()


@pytest.mark.parametrize("name", HEADS)
def test_the_closed_form_is_grad_cam_for_every_classifier(name):
    outputs = outputs_pair(head=HEADS[name]()).new.detached()
    for label in range(CLASSES):
        classes = torch.full((8,), label)
        actual = looked_at(outputs, outputs.head, classes)
        assert actual.shape == (8, 4, 4)
        assert not actual.requires_grad
        assert_close(actual, slowly(outputs, outputs.head, classes), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*FROM_SUMS, "nme", "som"])
def test_and_for_every_read_out(name):
    outputs, scores, classes = outputs_pair().new.detached(), read_out(name), torch.tensor([0, 1, 2, 3] * 2)
    outputs = with_maps(outputs, outputs.pooled + 0.01)  # a root has no gradient where a channel is zero everywhere
    with torch.no_grad():
        actual = looked_at(outputs, scores, classes)
    assert_close(actual, slowly(outputs, scores, classes), rtol=1e-7, atol=1e-9)
    alive = actual.flatten(1).any(1)
    assert alive.any()
    assert_close(actual.flatten(1).norm(dim=1)[alive], torch.ones(int(alive.sum()), dtype=torch.float64))


def test_a_score_of_another_scale_is_looked_at_alike():
    outputs, scores = outputs_pair().new.detached(), read_out("lda")
    classes = torch.zeros(8, dtype=torch.int64)
    assert_close(looked_at(outputs, lambda f: 1e-12 * scores(f), classes), looked_at(outputs, scores, classes))


def test_a_channel_that_is_zero_everywhere_adds_nothing():
    """The gradient of fecam's root is infinite there."""
    outputs = outputs_pair().new.detached()
    pooled = outputs.pooled.clone()
    pooled[:, 2] = 0
    actual = looked_at(with_maps(outputs, pooled), read_out("fecam"), torch.zeros(8, dtype=torch.int64))
    assert actual.isfinite().all()
    assert actual.any()


def glance(step, attention):
    return Glance(step, None, None, None if attention is None else torch.tensor([attention], dtype=torch.float64))


def test_drift_is_from_the_first_step_that_knows_the_class():
    unknown, first, dead, later = map(glance, (1, 2, 3, 4), (None, [0.6, 0.8], [0.0, 0.0], [1.0, 0.0]))
    told = with_drift([unknown, first, dead, later])
    assert [each.l1 for each in told] == [None, 0, None, pytest.approx(1.2)]
    assert [each.dead for each in told] == [False, False, True, False]
    assert [each.l1 for each in with_drift([unknown, dead, later])] == [None, None, None]


def test_distances_of_attention_may_be_from_one_map_for_all():
    maps = torch.rand(3, 2, 2)
    assert_close(attention_drift(maps, maps[:1])[0], attention_drift(maps, maps[:1].expand(3, 2, 2))[0])
