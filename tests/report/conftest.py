import pytest


@pytest.fixture
def no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """t-SNE takes seconds: where the map is not the point, leave it out."""
    from tlrun.report.figures import plots
    from tlrun.report.read.entries import Missing

    def draw_nothing(record, path):
        raise Missing("switched off by the test")

    monkeypatch.setitem(plots.PLOTS, "embedding", draw_nothing)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the words alone."""
    from tlrun.report.figures import plots

    monkeypatch.setattr(plots, "PLOTS", {})
