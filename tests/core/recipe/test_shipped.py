"""The recipes that come with lwmfw, as files: what each is for, and copies of them."""

import pytest

from lwmfw.errors import UserError
from lwmfw.recipe import shipped


@pytest.mark.parametrize(
    ("text", "purpose"),
    [("# LwM.\n# more\n", "LwM"), ("\n#:schema x.json\n# LwM\n", "LwM"), ("seed = 1\n", ""), ("", "")],
)
def test_the_purpose_of_a_recipe_is_the_first_line_of_its_head(text, purpose, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    assert shipped.purpose(tmp_path / "a.toml") == purpose


def test_all_are_copied_at_once_each_base_once(tmp_path):
    copied = shipped.copy(None, tmp_path)
    assert len(copied) == len(set(copied)) == len(shipped.recipes()) + 1
    names = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in copied}
    assert names == {*shipped.recipes(), "recipe.schema"}


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"/file/below: cannot be written to: .+; copy into another folder$"):
        shipped.copy("lwm", tmp_path / "file" / "below")
