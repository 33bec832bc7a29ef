"""Workers: the same bits however they start, alive as long as a run, and what is said when they or a codec fail."""

import multiprocessing
import os
import re
import signal
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.photographs import gone, photographs

from lwmfw import Component
from lwmfw.data import workers
from lwmfw.data.workers import Carried, in_workers, kept_workers, worker_count
from lwmfw.errors import RunFailed
from lwmfw.testing import check_codec, tiny_run

CODEC = '''
"""A codec in a file: it notes which process decodes."""
import os
from lwmfw import Codec, hookimpl
from lwmfw_plugins.codecs.raw import Raw

class Noting(Raw):
    def __init__(self, options):
        self.note = "pids"
        {more}

    def decode(self, encoded, shape):
        with open(self.note, "a") as file:
            print(os.getpid(), file=file)
        {then}
        return super().decode(encoded, shape)

@hookimpl
def register_components():
    yield Codec("noting", Noting)
'''


@pytest.fixture
def start(monkeypatch):
    """Sets how processes start; there are two workers, whatever the machine has, and small batches for them."""
    before = multiprocessing.get_start_method(allow_none=True)
    monkeypatch.setattr("lwmfw.data.workers.worker_count", lambda: 2)
    monkeypatch.setattr("lwmfw.data.decoding.CHUNK", 4)
    monkeypatch.setattr("lwmfw.data.loader.CHUNK", 4)
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def alone(monkeypatch):
    """A context in which this process decodes by itself."""

    def run(tables, folder):
        with monkeypatch.context() as patch:
            patch.setattr("lwmfw.data.workers.worker_count", lambda: 0)
            return run_in(tables, folder)

    return run


def run_in(tables, folder):
    Path(folder).mkdir()
    return tiny_run(tables, Path(folder))


def codec_file(more="pass", then="pass"):
    Path("noting.py").write_text(CODEC.format(more=more, then=then))
    return photographs("noting", plugins=[str(Path("noting.py").resolve())])


def tiny_codecs():
    """Shipped codecs as runs call them."""
    tables = {"memory": photographs()["memory"], "objective": photographs()["objective"]}
    runs = [tables | {"memory": tables["memory"] | {"codec": {"use": name}}} for name in ("raw", "jpeg")]
    return [run_in(tables, f"tiny{number}").run.memory.codec for number, tables in enumerate(runs)]


def bits(done):
    """All that a run came to: weights, confusion matrices, and the exemplars' bytes."""
    confusion = [step.confusion for step in done.results.steps]
    weights = {name: value.numpy().tobytes() for name, value in done.run.model.state_dict().items()}
    return weights, confusion, done.run.memory.exemplars


def process_of(batch):
    return os.getpid()


def die(batch):
    if batch == [3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch


def ten(count=10):
    return [[n] for n in range(count)]


# the same bits in every process


@pytest.mark.parametrize(
    ("method", "codec"),
    [
        ("fork", "raw"),
        ("fork", "jpeg"),
        pytest.param("spawn", "jpeg", marks=pytest.mark.slow),
        pytest.param("spawn", "raw", marks=pytest.mark.slow),
        pytest.param("forkserver", "raw", marks=pytest.mark.slow),
        pytest.param("forkserver", "jpeg", marks=pytest.mark.slow),
    ],
)
def test_photographs_with_exemplars_have_the_same_bits_however_workers_start(start, alone, method, codec):
    expected = bits(alone(photographs(codec), "alone"))
    start(method)
    assert bits(run_in(photographs(codec), "workers")) == expected


def run_and_tell(tables, connection):
    connection.send((worker_count(), multiprocessing.current_process().daemon, bits(run_in(tables, "daemon"))))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("codec", [pytest.param("raw", marks=pytest.mark.slow), "jpeg"])
def test_a_daemonic_process_decodes_by_itself(alone, codec):
    expected = bits(alone(photographs(codec), "alone"))
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=run_and_tell, args=(photographs(codec), there), daemon=True)
    process.start()
    there.close()
    count, daemon, found = here.recv()
    process.join()
    assert (count, daemon) == (0, True)
    assert found == expected


# codecs that reach a worker, and others


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_codec_from_a_plug_in_file_decodes_where_it_is_known(start, alone, method):
    expected = bits(alone(codec_file(), "alone"))
    Path("pids").unlink()
    start(method)
    assert bits(run_in(codec_file(), "workers")) == expected
    decoded_here = {int(pid) == os.getpid() for pid in Path("pids").read_text().split()}
    assert decoded_here == {method == "spawn"}


def test_a_codec_that_cannot_be_pickled_decodes_in_the_main_process(start, alone):
    tables = codec_file(more="self.note_of = lambda: 'pids'")
    expected = bits(alone(tables, "alone"))
    start("fork")
    assert bits(run_in(tables, "workers")) == expected
    assert set(Path("pids").read_text().split()) == {str(os.getpid())}


def kind_of(batch):
    return [type(carried.content).__name__ for carried in batch]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_shipped_codecs_reach_workers(start, method):
    start(method)
    codecs = tiny_codecs()
    batches = [[Carried(codec)] for codec in codecs]
    assert [kinds for _, kinds in in_workers(kind_of, batches, len(batches))] == [["Raw"], ["Jpeg"]]


class Unpicklable:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.mark.parametrize("error", [RecursionError, SystemExit(0)])
def test_what_cannot_be_pickled_arrives_as_none(error):
    function, arguments = Carried(Unpicklable(error)).__reduce__()
    assert function(*arguments).content is None
    function, arguments = Carried([1, 2]).__reduce__()
    assert function(*arguments).content == [1, 2]
    assert function(b"\x80\x04cno_such_module\nclass\n.").content is None


def test_the_kit_warns_of_a_codec_that_cannot_be_pickled():
    from lwmfw_plugins.codecs.raw import Raw

    class Local(Raw):
        pass

    with pytest.warns(UserWarning, match="Local cannot be pickled; it holds up the main process"):
        check_codec(Local(Component))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_codec_that_fails_is_named_with_its_provider_and_the_exemplar(start, method):
    start(method)
    tables = codec_file(then='raise ValueError("no such tree")')
    with pytest.raises(RunFailed) as failed:
        run_in(tables, "failing")
    assert re.fullmatch(
        r"noting\.py:\d+: Noting\.decode raised ValueError: no such tree; the run stopped in step 2, epoch 1.*; "
        r"memory\.codec was decoding exemplar [0-5]",
        str(failed.value),
    )
    assert failed.value.exit_code == 1


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_a_codec_that_exits_ends_no_worker_and_is_named(start, method):
    start("fork")
    leave = "raise SystemExit(0)"
    more = f"self.encode = lambda pixels: exec({leave!r})"
    tables = codec_file(more=more) if method == "encode" else codec_file(then=leave)
    with pytest.raises(RunFailed, match=rf"^noting\.py:\d+: Noting\.{method} raised SystemExit: 0; the run stopped"):
        run_in(tables, "failing")


@pytest.mark.slow
def test_a_codec_that_exits_when_it_is_pickled_decodes_in_the_main_process(start, alone):
    tables = codec_file(more="type(self).__getstate__ = lambda self: exit()")
    expected = bits(alone(tables, "alone"))
    start("fork")
    assert bits(run_in(tables, "workers")) == expected


class Here:
    """Work that notes which thread pickles it."""

    threads: ClassVar[list] = []

    def __call__(self, batch):
        return batch

    def __getstate__(self):
        self.threads.append(threading.current_thread() is threading.main_thread())
        return {}


def test_work_is_pickled_by_the_main_thread_first(start):
    start("fork")
    assert len(list(in_workers(Here(), ten(), 10))) == 10
    assert Here.threads[0]


def test_a_codec_that_fails_to_encode_is_named_rather_than_the_file(start):
    start("fork")
    tables = codec_file(more="self.encode = lambda pixels: 1 / 0")
    with pytest.raises(
        RunFailed, match=r"^noting\.py:\d+: Noting\.encode raised ZeroDivisionError: .* the first step$"
    ):
        run_in(tables, "failing")


def test_a_codec_that_makes_images_of_another_size_is_refused(start):
    start("fork")
    tables = codec_file(then="shape = (3, 1, shape[1] * shape[2])")
    with pytest.raises(RunFailed, match=r"^noting\.py: noting\.decode returned torch\.uint8 of shape \(1, 3, 1, "):
        run_in(tables, "failing")


# how long workers live


def test_workers_live_across_passes_and_no_longer(start):
    start("fork")
    others = {child.pid for child in multiprocessing.active_children()}  # of tests before, perhaps
    with kept_workers():
        passes = [{pid for _, pid in in_workers(process_of, ten(), 10)} for _ in range(3)]
        with kept_workers():
            passes.append({pid for _, pid in in_workers(process_of, ten(), 10)})
        alive = {child.pid for child in multiprocessing.active_children()} - others
    assert len(set.union(*passes)) <= 2
    assert set.union(*passes) <= alive
    assert not {child.pid for child in multiprocessing.active_children()} & alive
    outside = {pid for _, pid in in_workers(process_of, ten(), 10)}
    assert not outside & alive
    assert gone(outside)


def test_a_run_starts_workers_once(start, monkeypatch):
    made = []

    class Counted(workers.ProcessPoolExecutor):
        def __init__(self, *given):
            made.append(given)
            super().__init__(*given)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Counted)
    start("fork")
    before = multiprocessing.active_children()
    run_in(photographs(), "run")
    assert len(made) == 1
    assert multiprocessing.active_children() == before


def test_batches_are_taken_in_order_and_a_few_ahead(start):
    start("fork")
    taken = []

    def batches():
        for batch in ten(20):
            taken.append(batch)
            yield batch

    results = in_workers(sum, batches(), 20)
    assert next(results) == ([0], 0)
    assert len(taken) <= 5
    assert list(results) == [([n], n) for n in range(1, 20)]


def test_an_iteration_given_up_half_way_does_no_harm(start):
    start("fork")
    with kept_workers():
        for _ in range(3):
            results = in_workers(sum, ten(), 10)
            assert next(results) == ([0], 0)
            del results
        with pytest.raises(ZeroDivisionError):  # an exception in training
            sum(1 / result for _, result in in_workers(sum, ten(), 10))
        assert [result for _, result in in_workers(sum, ten(), 10)] == list(range(10))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_fails_the_run_in_words_and_the_next_has_others(start, method):
    start(method)
    with kept_workers():
        with pytest.raises(RunFailed, match=r"^data: a decoding process died; see that there is memory") as failed:
            list(in_workers(die, ten(), 10))
        assert ("__main__" in str(failed.value)) == (method != "fork")
        assert [result for _, result in in_workers(sum, ten(), 10)] == list(range(10))


def test_one_batch_is_done_here(start):
    start("fork")
    assert [pid for _, pid in in_workers(process_of, ten(1), 1)] == [os.getpid()]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_one_core_decodes_by_itself(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert worker_count() == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(99)))
    assert worker_count() == 8
