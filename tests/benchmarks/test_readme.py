"""Documents are made again by the commands in their comments."""

from pathlib import Path

import pytest

from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from benchmarks.readme import COMMENT, DOCUMENTS, remake

ROOT = Path(__file__).parents[2]
PAGE = """before
<!-- remake
copy table.md copied/table.md
show table.md 1
python -c "print('printed')"
-->
old
<!-- end -->
between
<!-- remake
asyncdiff recipes list --json
-->
![a picture](a.png)
<!-- end of something else -->
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table.md").write_text("title\n\n| a |\n| --- |\n\nmore\n")


def test_what_a_comment_shows_takes_the_place_of_what_was_there(table):
    made = remake(PAGE)
    assert made == PAGE.replace("old\n", "| a |\n| --- |\nprinted\n")
    assert remake(made) == made
    assert Path("copied/table.md").read_text() == Path("table.md").read_text()


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        ("rm table.md", InputError, "'rm table.md' is not asyncdiff"),
        ("show table.md 1", InputError, "has no <!-- end -->"),
        ("asyncdiff recipes show nothing", AsyncDiffError, "recipes show nothing ended with 2"),
        ("asyncdiff recipes show --limit 96", AsyncDiffError, "--limit 7 ended with 2"),
    ],
)
def test_what_cannot_be_made_stops_it(table, lines, error, message):
    with pytest.raises(error, match=message):
        remake(f"<!-- remake\n{lines}\n-->\n", limit=7)


def test_the_documents_have_comments_that_it_reads():
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        assert len(COMMENT.findall(text)) == text.count("<!-- remake") > 0
        assert "<!-- end -->" not in COMMENT.sub("", text)
