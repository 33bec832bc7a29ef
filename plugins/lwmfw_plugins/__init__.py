"""The components that lwmfw ships, each in a file of the same form as a stranger's plug-in.

A file imports torch where it computes rather than at its head, so that `check`, `show` and `plugins`, which only need
names and options, answer at once. What has to subclass `nn.Module` stands in a file beside its component.
"""

from collections.abc import Iterator

from lwmfw import Component, hookimpl
from lwmfw_plugins.backbones import resnet, resnet18, resnet_cbam, timm, torchvision
from lwmfw_plugins.classifiers import cosine, linear, proxies
from lwmfw_plugins.data import caltech101, cifar, cub200, fashion_mnist, folder, imagenet, synthetic, tiny_imagenet
from lwmfw_plugins.memory import closest, dynamic, even, herding, jpeg, mnemonics, random, raw
from lwmfw_plugins.objectives import bce, cross_entropy, nca
from lwmfw_plugins.observers import attention_drift, console
from lwmfw_plugins.penalties import ewc, freeze, kd, l_ad, l_d, less_forget, margin_ranking, mas, pod, pod_flat, si
from lwmfw_plugins.phases import balanced

_FILES = (
    *(fashion_mnist, cifar, folder, tiny_imagenet, imagenet, caltech101, cub200, synthetic),
    *(resnet, resnet18, resnet_cbam, torchvision, timm),
    *(linear, cosine, proxies),
    *(cross_entropy, bce, nca),
    *(l_d, l_ad, kd, less_forget, margin_ranking, pod, pod_flat, freeze),
    *(ewc, si, mas),
    balanced,
    *(random, herding, closest, even, dynamic, mnemonics, raw, jpeg),
    *(console, attention_drift),
)


@hookimpl
def register_components() -> Iterator[Component]:
    """The components of all files."""
    for file in _FILES:
        yield from file.register_components()
