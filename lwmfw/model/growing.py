"""The growing model, and the frozen copy of it that the next step calls old."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lwmfw.errors import WrongAnswer, describe, is_out_of_memory
from lwmfw.model.outputs import Features, Form, Outputs, checked_features, checked_logits, state_fault


class Model(nn.Module):
    """A backbone, a classifier with one row per seen class, and what plug-ins add.

    Attributes:
        extras: a plug-in's own trainable parts: optimised, copied and checkpointed with the rest. Fill it in
            `before_run`.
        classes: rows of the classifier.
        bf16: whether the backbone computes in bfloat16.
        form: what the backbone's answers have in common; None: they may be of any.
        image: shape of an image (C, H, W); None where there is no form.
        batchnorm: what BatchNorm is in training mode, as training.batchnorm of a recipe; "train" outside the phases.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Module,
        *,
        bf16: bool = False,
        form: Form | None = None,
        image: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.extras = nn.ModuleDict()
        self.classes = 0
        self.bf16 = bf16
        self.form = form
        self.image = image
        self.batchnorm = "train"

    @property
    def width(self) -> int:
        """How many features the backbone offers."""
        return self.form.width if self.form else 0

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def stages(self) -> int:
        """How many maps the backbone offers."""
        return self.form.maps if self.form else 0

    def forward(self, images: Tensor) -> Outputs:
        """Outputs for normalised images (B, C, H, W). The classifier runs in float32 whatever the precision.

        Raises:
            WrongAnswer: backbone or classifier does not answer as its kind has to.
        """
        device = images.device.type
        precision = torch.autocast(device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with precision, _answering("backbone", "forward"):
            body = checked_features(self.backbone(images), images, self.form)
        keep_gradients_format(body)
        features = body.features.float() if self.bf16 else body.features
        with _answering("classifier", "forward"):
            logits = checked_logits(self.classifier(features), features, self.classes)
        return Outputs(logits, features, body.maps, body.raw_maps, body.pooled, self.classifier)

    def train(self, mode: bool = True) -> Model:
        """Training or evaluation mode. A frozen backbone stays in evaluation mode, or its BatchNorm would learn on."""
        super().train(mode)
        trained = [p.requires_grad for p in self.backbone.parameters()]
        if trained and not any(trained) and self.batchnorm != "always":
            self.backbone.eval()
        if self.batchnorm == "eval":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def grow(self, classes: int) -> None:
        """Give the classifier rows for `classes` more classes."""
        if classes:
            with _answering("classifier", "grow"):
                self.classifier.grow(classes)  # type: ignore[operator]
            self.classes += classes

    def reshaped(self, device: torch.device | None = None) -> None:
        """Take in that the backbone has changed its shape: it is asked for its form, the classifier is resized to it.

        Args:
            device: where the model belongs; None: where it is.

        Raises:
            WrongAnswer: the backbone does not answer as its kind has to, or the classifier cannot be resized.
        """
        _in_channels_last(self.to(device or self.device))
        if self.form is None or self.image is None:
            return
        before = self.form
        with _answering("backbone", "forward"):
            self.form = probed(self.backbone, torch.zeros(1, *self.image, device=self.device))
        if self.form.width == before.width:
            return
        if not callable(getattr(self.classifier, "resize", None)):
            what = f"has {self.form.width} features after {before.width}, to which the classifier cannot be resized"
            raise WrongAnswer("backbone", f'{what}; let it need "resize"')
        with _answering("classifier", "resize"):
            self.classifier.resize(self.form.width)  # type: ignore[operator]
            self.to(self.device)

    def take_state(self, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
        """Read a state, of a model that has grown by as many classes.

        A backbone that has other shapes than the state is given the chance to take them on first.

        Returns:
            The names that are missing, and those that have no place.

        Raises:
            RuntimeError: parts are of another shape.
        """
        body = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
        own = {name: value.shape for name, value in self.backbone.state_dict().items()}
        if any(own.get(name, value.shape) != value.shape for name, value in body.items()):
            self.backbone.load_state_dict(body, strict=False)
            self.reshaped()
        missing, unexpected = self.load_state_dict(state, strict=False)
        return missing, unexpected


@contextlib.contextmanager
def _answering(kind: str, method: str) -> Iterator[None]:
    """Blame what comes out of a network on the component it is of: a file can hold components of many kinds, and a
    call that a network does not take leaves no frame of its file in the traceback."""
    try:
        yield
    except WrongAnswer:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        raise WrongAnswer(kind, f"raised {describe(error)} from {method}") from error


def build_model(
    backbone: nn.Module,
    classifier: nn.Module,
    device: torch.device,
    *,
    bf16: bool,
    form: Form | None = None,
    image: tuple[int, int, int] | None = None,
) -> Model:
    """A model without classes on its device, in the memory format that convolutions are fastest in."""
    return _in_channels_last(Model(backbone, classifier, bf16=bf16, form=form, image=image).to(device))


def _in_channels_last(model: Model) -> Model:
    """The same model; torch's own way of doing it fails for three-dimensional convolutions."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


def check_state(model: Model) -> None:
    """See that checkpoints can keep the parts of a model.

    Raises:
        WrongAnswer: they cannot keep one.
    """
    extras = ((f"part '{name}' in model.extras", part) for name, part in model.extras.items())
    for kind, part in (("backbone", model.backbone), ("classifier", model.classifier), *extras, ("model", model)):
        with _answering(kind, "state_dict"):
            fault = state_fault(part)
        if fault:
            raise WrongAnswer(kind, fault, part)


def frozen_copy(model: Model) -> Model:
    """The model as the next step's old one: evaluation mode, no gradients, BatchNorm folded into convolutions.

    Folding changes float32 outputs by rounding only and saves a quarter of the forward pass.
    """
    old = _copied(model).eval().requires_grad_(False)
    old.zero_grad(set_to_none=True)
    for module in old.modules():
        if type(module).forward is nn.Sequential.forward:
            _fold(cast(nn.Sequential, module))
    return _in_channels_last(old)


def _copied(model: Model) -> Model:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        for kind in ("backbone", "classifier"):
            try:
                copy.deepcopy(getattr(model, kind))
            except Exception as fault:
                hint = "keep what a network needs in parameters, buffers and plain values"
                raise WrongAnswer(kind, f"cannot be copied ({describe(fault)}); {hint}") from error
        raise


def parameter_count(model: nn.Module) -> int:
    """Number of trainable values, without a plug-in's own parts."""
    return sum(p.numel() for part in _deciding(model) for p in part.parameters())


def model_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, likewise; whether all of its state can be kept is the checkpoint's question."""
    values = [value for part in _deciding(model) for value in part.state_dict().values()]
    return sum(t.numel() * t.element_size() for t in values if isinstance(t, Tensor))


def _deciding(model: nn.Module) -> list[nn.Module]:
    """What of a model decides: not the extras, which it learns by and is opened without."""
    return [model.backbone, model.classifier] if isinstance(model, Model) else [model]


def keep_gradients_format(body: Features) -> None:
    """Have the gradients of channels-last maps brought to channels-last before the backbone receives them.

    A spatial mean and sums over an axis send back expanded tensors; added up, they lie as NCHW, and a shortcut hands
    that on to every block before it. For such a gradient BatchNorm's backward pass leaves its fast path: it took a
    quarter of PODNet's update. A gradient enters a backbone through what it offers, whosever it is, and a tensor's hook
    receives the sum of all that head, penalties and next stage send, so a copy per stage mends all of it.
    """
    for tensor in (*body.maps, *body.raw_maps, *([] if body.pooled is None else [body.pooled])):
        if tensor.requires_grad and tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
            tensor.register_hook(_channels_last)


def _channels_last(gradient: Tensor) -> Tensor:
    """The same values; a copy only if they lie otherwise. vmap, as penalties take it, knows no memory formats."""
    return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards the mode is what it was."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def probed(backbone: nn.Module, images: Tensor) -> Form:
    """What the answers of a backbone have in common, found by asking it once in evaluation mode.

    Raises:
        WrongAnswer: it does not answer as a backbone has to.
        Exception: of any kind, as the backbone does.
    """
    with evaluating(backbone):
        return Form.of(checked_features(backbone(images), images))


@contextlib.contextmanager
def full_precision(model: Model) -> Iterator[None]:
    """Forward passes in float32 throughout; afterwards the precision is what it was."""
    bf16, model.bf16 = model.bf16, False
    try:
        yield
    finally:
        model.bf16 = bf16


def _fold(sequential: nn.Sequential) -> None:
    """Fold each BatchNorm2d into the convolution right before it, which a Sequential guarantees to feed it alone.

    Subclasses are left as they are: they may compute something else.
    """
    names = list(sequential._modules)
    for first, second in itertools.pairwise(names):
        convolution, norm = sequential._modules[first], sequential._modules[second]
        if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
            sequential._modules[first] = fuse_conv_bn_eval(convolution, norm)
            sequential._modules[second] = nn.Identity()
