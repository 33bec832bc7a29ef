"""What a 224-pixel run on image files needs at its peak, for one number of images and for ten times as many.

    python benchmarks/memory.py [--images 320 3200]

Makes folders of JPEG photographs of 500x400 pixels, four classes each, in a temporary place, runs `lwmfw run` on them
with a narrow ResNet-20 (two steps of one epoch, batch 32; 320 images fill the batches of evaluation too), and reads the
memory of the run and of its decoding workers from /proc five times a second. RSS counts what processes share once for
each of them; PSS counts it once. Linux only.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from lwmfw import ImageFiles
from lwmfw.data.loader import EpochShape, Loader
from lwmfw.data.workers import worker_count
from lwmfw.testing import tiny_recipe

CLASSES = 4
WIDTH, HEIGHT = 500, 400


def photograph(seed: int) -> bytes:
    """A JPEG of smooth noise with some grain, about as large as a photograph is."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 15, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0]
    grain = 0.05 * torch.randn(3, HEIGHT, WIDTH, generator=rng)
    pixels = (smooth + grain).clamp(0, 1).mul(255).byte().permute(1, 2, 0).contiguous()
    stream = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def make_photographs(root: Path, count: int) -> list[str]:
    """`count` files, of which every 32nd has the same content."""
    contents = [photograph(seed) for seed in range(32)]
    paths = [root / f"class {n % CLASSES}" / f"{n}.jpg" for n in range(count)]
    for n, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[n % len(contents)])
    return [str(path) for path in paths]


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    return [pid, *(member for child in children for member in family(child))]


def megabytes(pid: int, key: str) -> float:
    """A figure of /proc/PID/smaps_rollup; 0 for a process that has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), 0.0)


def peaks(command: list[str]) -> dict[str, float]:
    """The highest sums of RSS and PSS over a command and its descendants, in MB, and of RSS of the command alone."""
    highest = {"RSS": 0.0, "PSS": 0.0, "RSS of the run itself": 0.0}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own command line
        while process.poll() is None:
            members = family(process.pid)
            now = {
                "RSS": sum(megabytes(pid, "Rss") for pid in members),
                "PSS": sum(megabytes(pid, "Pss") for pid in members),
                "RSS of the run itself": megabytes(process.pid, "Rss"),
            }
            highest = {key: max(value, now[key]) for key, value in highest.items()}
            time.sleep(0.2)
    assert process.returncode == 0, process.returncode
    return highest


def decoding_rate(paths: list[str]) -> float:
    """Images a second that reach the model in training, without a model."""
    files = ImageFiles(paths, torch.zeros(len(paths), dtype=torch.int64), 224, 256)
    loader = Loader(torch.zeros(3, 1, 1), torch.ones(3, 1, 1), 0, True)
    started = time.perf_counter()
    for _ in loader.training_batches(files, EpochShape(len(files), 0, 32), torch.Generator().manual_seed(0)):
        pass
    return len(paths) / (time.perf_counter() - started)


def main() -> None:
    """Print the peaks for each number of images, and the decoding rate for the last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[320, 3200])
    arguments = parser.parse_args()
    print(f"{worker_count()} workers, {torch.get_num_threads()} threads")
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            paths = make_photographs(Path(folder) / "photographs", count)
            recipe = tiny_recipe(
                {
                    "data": {"use": "folder", "root": str(Path(folder) / "photographs")},
                    "backbone": {"use": "resnet20", "width": 2},
                    "training": {"epochs": 1, "batch_size": 32},
                },
                Path(folder),
            )
            run = [sys.executable, "-m", "lwmfw", "run", str(recipe), "--device", "cpu", "--out", f"{folder}/run"]
            found = ", ".join(f"{name} {value:.0f} MB" for name, value in peaks(run).items())
            print(f"{count} images: peak {found}", flush=True)
            rate = decoding_rate(paths)
    print(f"decoding {WIDTH}x{HEIGHT} JPEG to 224x224 training images: {rate:.0f} images/s")


if __name__ == "__main__":
    main()
