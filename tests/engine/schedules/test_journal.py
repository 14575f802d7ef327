"""What a long search keeps beside its output, to go on from."""

import pytest

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.schedules.journal import Journal, workplace

SETTINGS = {"steps": 4, "model": {"dtype": "fp32"}}


def never():
    raise AssertionError("it was found already")


def test_what_was_found_is_found_once(tmp_path):
    output = tmp_path / "a.json"
    journal = Journal(output, SETTINGS)
    assert not journal.path.exists()
    assert journal.once("errors", lambda: [0.1 + 0.2, 1e-300]) == [0.30000000000000004, 1e-300]
    journal.keep("settled", [1])
    again = Journal(output, SETTINGS)
    assert again.once("errors", never) == [0.30000000000000004, 1e-300]
    assert again.get("settled") == [1]
    assert again.get("other", []) == []
    again.remove()
    assert list(tmp_path.iterdir()) == []
    assert Journal(output, SETTINGS).get("errors") is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 5}, r"other settings, steps \(4, not 5\)"),
        ({"model": {"dtype": "fp16"}}, r"other settings, dtype \('fp32', not 'fp16'\)"),
        ({"seed": 1}, r"other settings, seed \(None, not 1\)"),
    ],
)
def test_that_of_other_settings_is_refused(tmp_path, changed, message):
    Journal(tmp_path / "a.json", SETTINGS).keep("settled", [])
    with pytest.raises(InputError, match=message):
        Journal(tmp_path / "a.json", {**SETTINGS, **changed})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 1, "found": {}}', '{"found": {}}'])
def test_a_damaged_one_is_refused(tmp_path, text):
    (tmp_path / "a.settled").write_text(text)
    with pytest.raises(InputError, match=r"a\.settled is damaged"):
        Journal(tmp_path / "a.json", SETTINGS)


def test_one_command_makes_a_file_at_a_time_and_others_theirs(tmp_path):
    output = tmp_path / "new" / "a.json"
    with workplace(output) as directory:
        assert directory.is_dir()
        with pytest.raises(InputError, match=r"a\.json is being written by process .* another fil"):
            workplace(output).__enter__()
        with workplace(output.with_name("b.json")):
            pass
    assert not output.parent.exists()  # nothing was written
