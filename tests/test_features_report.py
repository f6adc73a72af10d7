"""The report on the promises tells the truth about good, bad and absent tests."""

from tests.features_report import PROMISES, Selection, ids_of, promised, report


def test_every_promise_has_one_row() -> None:
    """No id stands twice in docs/features.md, and all of them are read."""
    text = PROMISES.read_text("utf-8")
    ids = promised(text)
    assert len(ids) == len(set(ids)) == sum(row[:2] == "| " and row[2].isupper() for row in text.splitlines())
    assert ids[0] == "EC-01"
    assert ids[-1] == "F-47"


def test_ids_are_read_from_name_and_docstring() -> None:
    """Both spellings count; what only resembles an id does not."""
    assert ids_of("test_ec_07_and_f10_in_utf16", None) == {"EC-07", "F-10"}
    assert ids_of("test_half_01", "Cut at once (F-36, EC-04); see RFC-12, F-361, ABF-10.") == {"F-36", "EC-04"}


def test_verdicts() -> None:
    """A promise passes when a test of it passed and none failed; a skipped one proves nothing."""
    selection = Selection(["EC-01", "EC-02", "EC-03", "EC-04", "EC-05"])
    selection.tests |= {"EC-01": ["tests/rules/a", "tests/walk/b"], "EC-02": ["b", "c"], "EC-03": ["s"], "EC-05": ["x"]}
    selection.outcomes |= {"tests/rules/a": "passed", "tests/walk/b": "passed", "b": "passed", "c": "failed"}
    selection.outcomes |= {"s": "skipped"}
    assert report(selection) == [
        "EC-01 pass tests/walk/b",
        "EC-02 fail c",
        "EC-03 missing (skipped: s)",
        "EC-04 missing",
        "EC-05 fail x",
        "5 promises: 1 pass, 2 fail, 2 missing",
    ]
