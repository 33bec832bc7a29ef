"""Low-fidelity exemplars: what a decoder adds to them, training in pairs, and whole runs."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.pictures import noise, save
from helpers.runs import THREE_STEPS, interrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from lwmfw import Batch, DataSet, Images, Loader, Observer, hookimpl
from lwmfw.testing import outputs_pair, tiny_run
from lwmfw_plugins.codecs.mecil import Mecil, MecilOptions, agreement, pixels_of, pseudo_images, signal_to_noise
from lwmfw_plugins.codecs.mecil._decoder import drawn, refined, trained, untrained
from lwmfw_plugins.codecs.mecil._transform import Downsampled


def pictures(shape=(3, 16, 16), count=24, seed=0):
    """Smooth noise with some grain, as photographs are: float64, whole numbers."""
    rng = torch.Generator().manual_seed(seed)
    channels, *size = shape
    smooth = interpolate(torch.rand(count, channels, 5, 5, generator=rng), size, mode="bilinear")
    return (smooth + 0.03 * torch.randn(smooth.shape, generator=rng)).clamp(0, 1).mul(255).round().double()


# what comes back


@pytest.mark.parametrize("options", [{}, {"form": "downsample"}], ids=["pca", "downsample"])
def test_how_many_come_at_once_changes_no_bit(options, monkeypatch):
    codec, images = Mecil(MecilOptions(**options)), pictures((3, 9, 11), 5)
    layers = drawn(untrained(3, 16), torch.Generator().manual_seed(0))
    codec.decoder = [(w + 0.05, b) for w, b in layers]
    encoded = codec.encode(images.byte())
    whole = codec.decode(encoded, (3, 9, 11))
    monkeypatch.setattr("lwmfw_plugins.codecs.mecil._AT_ONCE", 200)
    assert codec.encode(images.byte()) == encoded
    assert torch.equal(codec.decode(encoded, (3, 9, 11)), whole)


def test_an_exemplar_of_another_length_is_refused():
    codec = Mecil(MecilOptions(block=8, bytes=16))
    good, cut = codec.encode(pictures((3, 16, 16), 2).byte())
    with pytest.raises(ValueError, match=r"^mecil: exemplar 1 has 63 bytes and should have 64$"):
        codec.decode([good, cut[:-1]], (3, 16, 16))


# the decoder


def test_an_untrained_decoder_adds_nothing():
    images = pictures((3, 5, 7))
    layers = drawn(untrained(3, 4), torch.Generator().manual_seed(0))
    assert torch.equal(refined(images.float(), layers), images.float())
    assert refined(images, []) is images


def test_the_decoder_is_convolutions_of_squares_of_pixels():
    rng = torch.Generator().manual_seed(0)
    layers = [
        (torch.randn(w.shape, generator=rng).double(), torch.randn(b.shape, generator=rng).double())
        for w, b in untrained(1, 2)
    ]
    image = pictures((1, 6, 5), 1)
    padded = np.pad(image[0, 0].numpy(), ((0, 0), (0, 1)), mode="edge")
    values = np.stack([(padded[i::2, j::2] - 128) / 64 for i in (0, 1) for j in (0, 1)])
    for number, (weight, bias) in enumerate(layers):
        around = np.pad(values, ((0, 0), (1, 1), (1, 1)))
        values = np.array(
            [
                [[(w.numpy() * around[:, y : y + 3, x : x + 3]).sum() + float(b) for x in range(3)] for y in range(3)]
                for w, b in zip(weight, bias, strict=True)
            ]
        )
        values = values if number == 2 else values.clip(0)
    added = np.empty((6, 6))
    for (i, j), square in zip(itertools.product((0, 1), repeat=2), values, strict=True):
        added[i::2, j::2] = square
    found = refined(image, layers)[0, 0].numpy()
    assert found == pytest.approx(image[0, 0].numpy() + 64 * added[:, :5])


def test_training_brings_restored_images_nearer_and_depends_on_rng_alone():
    images = pictures((1, 16, 16), 48).float()
    restored = Downsampled(2).lossy(images).clamp(0, 255)

    def decoder(seed, draw):
        torch.manual_seed(draw)
        rng = torch.Generator().manual_seed(seed)
        return trained(drawn(untrained(1, 4), rng), restored, images, 12, rng)

    layers = decoder(0, 0)
    assert signal_to_noise(refined(restored, layers), images) > signal_to_noise(restored, images) + 0.3
    assert all(map(torch.equal, itertools.chain(*layers), itertools.chain(*decoder(0, 1))))
    assert not torch.equal(layers[0][0], decoder(1, 0)[0][0])


def test_a_decoder_that_comes_no_nearer_stays_as_it_was():
    rng = torch.Generator().manual_seed(1)
    grains = torch.randint(0, 256, (16, 1, 8, 8), generator=rng).float()
    codec = Mecil(MecilOptions(block=4, bytes=16, decoder_width=4))
    codec.learn(grains, rng)
    restored = codec.transform.to(grains.device, grains.dtype).lossy(grains).clamp(0, 255)
    layers = [(w.float(), b.float()) for w, b in codec.decoder]
    assert torch.equal(refined(restored, layers), restored)  # as drawn: it adds nothing
    assert codec._learned["psnr_decoded"] == codec._learned["psnr_restored"]
    further = trained(layers, restored, grains, 5, rng)
    assert signal_to_noise(refined(restored, further), grains) < signal_to_noise(restored, grains) - 1
    kept = itertools.chain(*codec.decoder)
    codec.learn(grains, rng)
    assert all(map(torch.equal, itertools.chain(*codec.decoder), kept))


def test_decibels_are_of_the_mean_squared_error():
    images = torch.zeros(2, 1, 2, 2)
    assert signal_to_noise(images + torch.tensor([3.0, 1.0]), images) == pytest.approx(10 * math.log10(255**2 / 5))
    assert signal_to_noise(images, images) == pytest.approx(68.13, abs=0.01)


# pairs


def logits(seed, count=6, classes=5):
    return torch.randn(count, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(seed=st.integers(0, 50), counts=st.lists(st.booleans(), min_size=6, max_size=6))
def test_the_term_is_the_mean_divergence_of_predictions(seed, counts):
    original, pseudo = logits(seed), logits(seed + 100)
    p, q = (np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True) for x in (original, pseudo))
    each = [sum(a * math.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    new = [value for value, counted in zip(each, counts, strict=True) if counted]
    assert float(agreement(original, pseudo, torch.tensor(counts))) == pytest.approx(np.mean(new) if new else 0)


def test_equal_predictions_are_stationary_and_the_original_is_held_fixed():
    original, pseudo, all_new = logits(0).requires_grad_(), logits(1).requires_grad_(), torch.ones(6, dtype=torch.bool)
    agreement(original, pseudo, all_new).backward()
    assert original.grad is None
    assert pseudo.grad.abs().max() > 0
    equal = (original.detach() + 3).requires_grad_()
    agreement(original, equal, all_new).backward()
    assert equal.grad.abs().max() < 1e-12


def loader_of(images):
    data = Images(images.byte(), torch.zeros(len(images), dtype=torch.int64))
    return Loader.of(DataSet(data, data, ["a"], [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]), torch.device("cpu"))


def test_pixels_come_back_from_what_a_model_sees():
    images = torch.arange(256).repeat(3).view(1, 3, 16, 16)
    assert torch.equal(pixels_of(loader_of(images).normalise(images), loader_of(images)), images.float())


def penalty(from_memory, **options):
    """The term of a codec without a decoder, for the model and the batch of a pair."""
    pair, codec = outputs_pair(), Mecil(MecilOptions(block=4, bytes=2, decoder_epochs=0, **options))
    images = pictures((3, 8, 8), 8)
    codec.learn(images.float(), torch.Generator())
    loader = loader_of(images)
    codec.before_step(SimpleNamespace(loader=loader, device=images.device))
    shown, model = loader.normalise(images), pair.model.float()
    batch = Batch(shown, pair.batch.labels, torch.tensor(from_memory))
    return codec.compute_penalty(batch, model(shown), model), model


def test_pseudo_images_of_new_images_are_drawn_to_their_originals():
    terms, model = penalty([False] * 8, weight=2.0)
    halved, _ = penalty([False] * 8, weight=1.0)
    assert terms["mecil"] == 2 * halved["mecil"] > 0
    terms["mecil"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_exemplars_have_no_original_to_agree_with():
    terms, _ = penalty([True] * 8)
    assert terms["mecil"] == 0
    assert penalty([False] * 8, weight=0.0)[0] is None


# whole runs


def recipe(**codec):
    return {
        "objective": {"use": "cross_entropy", "over": "seen"},
        "memory": {
            "budget": "9 kB",
            "select": {"use": "herding"},
            "codec": {"use": "mecil", "block": 4, "bytes": 6, "decoder_width": 4, "decoder_epochs": 2} | codec,
        },
    }


@pytest.mark.parametrize(
    "codec",
    [{}, {"form": "downsample"}, {"decoder_epochs": 0}, {"form": "downsample", "decoder_epochs": 0}],
    ids=["pca", "downsample", "pca alone", "downsample alone"],
)
def test_bytes_are_those_of_images_and_of_what_reads_them(codec, tmp_path):
    phases = {"phases": [{"use": "balanced", "epochs": 1}]}
    finished = tiny_run(recipe(**codec) | phases, tmp_path)
    run, last = finished.run, finished.results.steps[-1]
    stored = [len(image.encoded) for image in run.memory.exemplars]
    codec = run.assembly.components["mecil"].instance
    shared = sum(value.nbytes for value in codec.state().values() if isinstance(value, torch.Tensor))
    assert shared == codec.shared_bytes((3, 8, 8))
    assert last.memory_bytes == sum(stored) + shared
    assert all(step.memory_bytes <= 9000 for step in finished.results.steps)
    assert last.exemplars == len(stored) >= 50
    assert "mecil" not in finished.terms[1]
    assert finished.terms[2]["mecil"] > 0


def test_results_say_how_near_pseudo_images_are(tmp_path):
    finished = tiny_run(recipe(decoder_epochs=30), tmp_path)
    told = [step.extra["mecil"] for step in finished.results.steps]
    assert all(list(each) == ["psnr_restored", "psnr_decoded"] for each in told)
    assert told[0]["psnr_decoded"] > told[0]["psnr_restored"]


def test_the_first_step_trains_as_it_would_with_another_codec(tmp_path):
    weights = []
    for name, codec in (("mecil", {}), ("raw", {"use": "raw"})):
        (tmp_path / name).mkdir()
        one = recipe() | {"scenario": {"first": 4}}
        one["memory"] = one["memory"] | {"budget": "5 per class", "codec": codec | {"use": name}}
        weights.append(tiny_run(one, tmp_path / name).run.model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_old_bytes_are_read_by_the_newest_decoder_and_kept(tmp_path):
    finished = tiny_run(recipe() | THREE_STEPS | {"memory": recipe()["memory"] | {"budget": "4 per class"}}, tmp_path)
    run = finished.run
    codec = run.assembly.components["mecil"].instance
    pixels = run.memory.images().pixels
    encoded = [image.encoded for image in run.memory.exemplars]
    assert torch.equal(codec.decode(encoded, tuple(pixels.shape[1:])), pixels)
    codec.decoder = []
    assert not torch.equal(codec.decode(encoded, tuple(pixels.shape[1:])), pixels)


class Watching:
    """Whether what is shown in a step is what its decoder makes, and how far pairs are from it in grey levels."""

    def __init__(self, options):
        self.told, self.seen = {}, None

    @hookimpl
    def before_step(self, run, step, data):
        self.codec, held = run.assembly.components["mecil"].instance, data.of_classes(step.old_classes)
        self.told[step.index] = []
        if step.index > 1:
            self.seen = run.memory.images().pixels
            assert torch.equal(held.pixels, self.seen)

    @hookimpl
    def after_update(self, step, batch):
        if step.index > 1:
            pixels = pixels_of(batch.images, self.codec._near[0])
            pairs = pixels_of(pseudo_images(batch.images, *self.codec._near), self.codec._near[0])
            decoded = self.codec.decode(self.codec.encode(pixels.byte()), tuple(pixels.shape[1:]))
            self.told[step.index].append((pairs - decoded.float()).abs())

    @hookimpl
    def after_step(self, run, step):
        kept = run.memory.images().of_classes(step.old_classes).pixels
        assert self.seen is None or not torch.equal(kept, self.seen[: len(kept)])


def test_exemplars_and_pairs_of_a_step_are_made_by_one_decoder_and_the_next_one_makes_others(tmp_path):
    chosen = recipe(decoder_epochs=40) | THREE_STEPS | {"phases": [{"use": "balanced", "epochs": 1}]}
    chosen["memory"] |= {"budget": "all"}
    watching = Observer("watching", Watching)
    run = tiny_run(chosen | {"observers": [{"use": "watching"}]}, tmp_path, components=[watching]).run
    told = run.assembly.components["watching"].instance.told
    assert [len(each) for each in told.values()] == [0, 8, 12]  # the balanced phase among them
    apart = torch.cat([each.flatten() for step in told.values() for each in step])
    assert apart.max() <= 1  # float32 beside float64
    assert apart.mean() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pca", "downsample"])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(form, tmp_path):
    runs = []
    chosen = recipe(form=form) | THREE_STEPS
    chosen["memory"] = chosen["memory"] | {"budget": "20 kB"}
    for name in ("whole", "halved"):
        (tmp_path / name).mkdir()
        runs.append(tiny_run(chosen, tmp_path / name) if name == "whole" else interrupted(tmp_path / name, chosen, 1))
    whole, resumed = (finished.run for finished in runs)
    assert resumed.memory.exemplars == whole.memory.exemplars
    ours, theirs = (run.assembly.components["mecil"].instance.state() for run in (whole, resumed))
    assert ours.keys() == theirs.keys()
    assert ours.pop("learned") == theirs.pop("learned")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert [s.extra for s in resumed.results.steps] == [s.extra for s in whole.results.steps]


def test_photographs_of_any_size_are_read_in_workers_by_the_newest_decoder(tmp_path, monkeypatch):
    for label, number in itertools.product(range(4), range(6)):
        picture = noise(18 + 3 * number, 24, 10 * label + number)
        save(picture, tmp_path / "photographs" / str(label) / f"{number}.png")
    data = {"use": "folder", "root": str(tmp_path / "photographs"), "size": 16, "decode": "each epoch"}
    run = tiny_run(recipe() | {"data": data}, tmp_path).run
    kept = run.memory
    assert len({(image.height, image.width) for image in kept.exemplars}) > 1
    shared = kept.codec.shared_bytes((3, 16, 16))
    assert kept.bytes == sum(len(image.encoded) + 4 for image in kept.exemplars) + shared <= 9000

    def shown(workers):
        monkeypatch.setattr("lwmfw.data.workers.worker_count", lambda: workers)
        return torch.cat([images for images, _ in run.loader.evaluation_batches(kept.images())])

    monkeypatch.setattr("lwmfw.data.loader.CHUNK", 4)
    by_newest = shown(2)
    assert torch.equal(by_newest, shown(0))
    run.assembly.components["mecil"].instance.decoder = []
    assert not torch.equal(shown(2), by_newest)
    assert torch.equal(shown(2), shown(0))
