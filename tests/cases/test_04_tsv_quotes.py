"""Tab-separated reviews of a shop, without any quoting: headlines begin with double quotes, and no row is lost."""

import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

HEADS = {40: '"Best lamp ever', 900: '"Meh, said my aunt', 1000: 'fits a 12" shelf'}
ROWS = [(n % 60, n // 60, n % 5 + 1, 1_400_000_000 + n, HEADS.get(n, "fine")) for n in range(1314)]
NAMES = ("user_id", "item_id", "rating", "timestamp", "headline")


def write(path, separator):
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in (NAMES, *ROWS)))
    return str(path)


@pytest.mark.parametrize("name", ["reviews.tsv", "reviews.txt"])
@pytest.mark.parametrize("columns", [Columns(), Columns(item_text="item_id")], ids=["no text", "a text"])
def test_between_tabs_quotes_have_no_meaning(tmp_path, name, columns):
    data = load(DataConfig(path=write(tmp_path / name, "\t"), columns=columns))
    assert (len(data), len(data.users)) == (1314, 60)


def test_between_other_separators_the_line_is_named_and_an_option_reads_it(tmp_path):
    path = write(tmp_path / "reviews.csv", "|")
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(path=path))
    assert_says(str(caught.value), f"{path}, line 42", "--data.quoting none")
    assert len(load(DataConfig(path=path, quoting="none"))) == 1314
