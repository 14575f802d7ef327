"""`asyncdiff report`."""

import pytest

from tests.helpers.reporting import make_run, make_store


@pytest.mark.parametrize("make", [make_store, make_run])
def test_the_report_is_beside_the_data_or_where_it_is_wanted(asyncdiff, tmp_path, make):
    make(tmp_path / "data")
    outcome = asyncdiff("report", "data")
    assert (outcome.code, outcome.out, outcome.err) == (0, "data/report.html\n", "")
    found = asyncdiff("report", "data", "--out", "new/page.html", "--json").json
    written = (tmp_path / "new" / "page.html").read_bytes()
    assert found == {"path": "new/page.html", "bytes": len(written)}
    assert written == (tmp_path / "data" / "report.html").read_bytes()
    (tmp_path / "other.html").write_text("mine")
    for _ in range(2):
        outcome = asyncdiff("report", "data", "--out", "other.html")
        assert outcome.out == "other-2.html\n"
        assert "other.html is there and holds something else" in outcome.err
    assert (tmp_path / "other.html").read_text() == "mine"


def test_what_is_neither_is_an_error_of_one_line(asyncdiff, tmp_path):
    outcome = asyncdiff("report", ".")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "holds neither an evaluation nor a training run" in outcome.err
    assert not any(tmp_path.iterdir())
