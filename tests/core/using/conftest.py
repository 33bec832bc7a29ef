import pytest
from helpers.months import CLASSES, READOUTS, extend, pictures

from lwmfw.testing import tiny_run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of pictures, and a run of the first classes with read-outs from sums."""
    place = tmp_path_factory.mktemp("shop")
    for folder, names in CLASSES.items():
        pictures(place / folder, names)
    pictures(place / "test", sum(CLASSES.values(), ()), count=4, first=10)
    data = {"use": "folder", "root": str(place / "months"), "size": 8, "decode": "once"}
    scenario = {"first": 0, "increment": 0, "order": "given"}
    (place / "base").mkdir()
    tiny_run(
        {"data": data, "scenario": scenario, "readouts": READOUTS, "penalties": [{"use": "L_D"}, {"use": "L_AD"}]},
        place / "base",
    )
    extend(place / "base" / "run", place / "april", place / "april-run")
    extend(place / "april-run", place / "may", place / "may-run")
    return place
