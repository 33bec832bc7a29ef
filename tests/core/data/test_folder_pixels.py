"""What a folder's options say of pixels holds from the first look at its files on."""

import numpy as np
from helpers.pictures import save
from PIL import Image

from lwmfw.recipe.catalogue import discover


def test_options_reach_the_first_look_at_a_folder(tmp_path):
    for name in "ab":
        for n in range(2):
            save(Image.fromarray(np.array([[-1000, 0], [500, 1000]], "i4")), tmp_path / name / f"{n}.tif")
    component = discover().find("data", "folder")
    options = component.options(root=str(tmp_path), values=[-1000, 1000], max_pixels=4)
    assert len(component.factory(options).load().train) == 2
