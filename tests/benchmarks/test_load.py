"""The stores that are timed are ones that every command reads."""

from benchmarks import load


def test_every_job_runs_on_a_store_of_small_parts():
    seconds = load.measure(20)
    assert list(seconds) == [
        *("keys", "histogram", "report", "compact"),
        *("keys, compacted", "histogram, compacted", "report, compacted"),
    ]
