"""The 2-D map of source and target features, before and after adaptation.

t-SNE (van der Maaten & Hinton, 2008) of at most 250 source and 250 target points after PCA to 30
dimensions, seed 0. A t-SNE map shows neighbourhoods, not distances; so each panel also states a
figure measured in the feature space itself: which share of a target image's ten nearest neighbours
comes from the source.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.errors import DataError
from tlrun.files.archives import load_npz
from tlrun.report.figures.style import CLASSES, QUIET, figure, short
from tlrun.report.formats import number
from tlrun.report.read.entries import Missing
from tlrun.report.read.run_record import RunRecord

POINTS_PER_DOMAIN = 250
NEIGHBOURS = 10


@dataclass(frozen=True)
class Features:
    """x: (n, D) float; label: (n,), -1 unknown; domain: (n,), 0 source, 1 target."""

    x: NDArray[np.float64]
    label: NDArray[np.int64]
    domain: NDArray[np.int64]

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """(n, at most 30): what map and neighbours are made of."""
        return _principal(self.x, 30)


def draw_embedding(record: RunRecord, path: Path) -> None:
    """Raises Missing when features.npz is not there or holds no two domains' worth of points."""
    panels = []
    if record.baseline is not None:
        with suppress(Missing):  # the map after adaptation is worth having alone
            before = read_features(record.baseline.run.features)
            panels.append(("Before adaptation", record.baseline, before))
    when = "After adaptation" if panels else "Selected model"
    panels.append((when, record, read_features(record.run.features)))
    with figure(path, 4.6 if len(panels) == 2 else 6.4, columns=len(panels)) as (fig, axes):
        fig.suptitle(
            "Source images are rings, target images are dots; colour and name give the class.",
            x=0.01,
            ha="left",
            fontsize=10,
        )
        for ax, (name, owner, features) in zip(axes[0], panels, strict=True):
            _draw_map(ax, record, features)
            accuracy = owner.value("target_test/accuracy")
            percent = number(accuracy, "share", sign=True)
            reached = "" if accuracy is None else f": target test {percent}"
            share, mixed = source_share(features)
            ax.set_title(
                f"{name}{reached}\n"
                f"{100 * share:.0f} % of a target image's neighbours are source images\n"
                f"({100 * mixed:.0f} % if the domains were fully mixed)",
                fontsize=9,
            )


def read_features(path: Path) -> Features:
    """At most POINTS_PER_DOMAIN finite points of each domain, drawn with a fixed seed."""
    try:
        file = load_npz(path)
        x = np.asarray(file["features"], dtype=np.float64)
        label = np.asarray(file["label"], dtype=np.int64)
        domain = np.asarray(file["domain"], dtype=np.int64)
    except (DataError, KeyError, ValueError, TypeError) as error:
        raise Missing("there are no readable features (features.npz)") from error
    if x.ndim != 2 or not len(x) == len(label) == len(domain):
        raise Missing("the arrays of features.npz do not fit together")
    finite = np.isfinite(x).all(axis=1)
    draw = np.random.default_rng(0)
    chosen = []
    for which in (0, 1):
        index = np.flatnonzero(finite & (domain == which))
        chosen.append(np.sort(draw.permutation(index)[:POINTS_PER_DOMAIN]))
    if min(len(index) for index in chosen) < NEIGHBOURS:
        raise Missing(f"features.npz holds fewer than {NEIGHBOURS} finite points of a domain")
    keep = np.concatenate(chosen)
    if np.ptp(x[keep], axis=0).max() == 0:
        raise Missing("all features are the same")
    return Features(x[keep], label[keep], domain[keep])


def to_plane(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, D) -> (n, 2) by PCA and t-SNE; the same input gives the same map on the same machine."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(x) - 1) / 3)
    # 500 iterations: the map no longer changes visibly, at half the default's time.
    tsne = TSNE(init="pca", perplexity=perplexity, max_iter=500, random_state=0, n_jobs=1)
    with threadpool_limits(
        1
    ):  # its OpenMP threads spin: on a busy machine ten times slower than one
        return np.asarray(tsne.fit_transform(_principal(x, 30)), dtype=np.float64)


def source_share(features: Features) -> tuple[float, float]:
    """Share of source points among a target point's neighbours: (measured, if fully mixed)."""
    from sklearn.neighbors import NearestNeighbors

    y = features.scores
    target = features.domain == 1
    search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, n_jobs=1).fit(y)
    near = search.kneighbors(y[target], return_distance=False)
    # A point is its own nearest neighbour, unless it has a double: leave it out by its index.
    self_index = np.flatnonzero(target)[:, None]
    others = near != self_index
    from_source = (features.domain[near] == 0) & others
    share = float((from_source.sum(1) / others.sum(1)).mean())
    return share, float((~target).sum() / (len(target) - 1))


def _principal(x: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """PCA scores, (n, between 2 and `dimensions`), scaled so that their largest spread is 1."""
    from scipy.linalg import eigh

    centred = x - x.mean(axis=0)
    centred /= np.abs(centred).max()
    # of the smaller of X Xᵀ and Xᵀ X, whose eigenvalues are the same: far cheaper than an SVD
    wide = centred.shape[1] > len(centred)
    gram = centred @ centred.T if wide else centred.T @ centred
    first = max(0, len(gram) - dimensions)
    values, vectors = eigh(gram, subset_by_index=[first, len(gram) - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = max(1, int((values > 1e-12 * values[0]).sum()))
    vectors = vectors[:, :keep]
    scores = vectors * np.sqrt(values[:keep]) if wide else centred @ vectors
    if scores.shape[1] < 2:
        scores = np.column_stack([scores, np.zeros(len(scores))])
    return np.asarray(scores / scores.std(axis=0).max())


def _draw_map(ax: Any, record: RunRecord, features: Features) -> None:
    plane = to_plane(features.scores)
    colour = np.array([CLASSES[k % len(CLASSES)] if k >= 0 else QUIET for k in features.label])
    source, target = features.domain == 0, features.domain == 1
    size = min(18.0, 9000 / len(plane))  # fewer points have room to be larger
    rings = {"facecolors": "none", "edgecolors": colour[source], "lw": 0.8, "alpha": 0.75}
    ax.scatter(*plane[source].T, s=2.5 * size, **rings)
    ax.scatter(*plane[target].T, s=size, c=colour[target], lw=0, alpha=0.9)
    classes = sorted({int(k) for k in features.label[source] if k >= 0})
    if len(classes) <= 40:  # beyond that the names cover the map
        for k in classes:
            # The point nearest to the median lies inside the cluster even where that is a ring.
            points = plane[source & (features.label == k)]
            middle = points[((points - np.median(points, axis=0)) ** 2).sum(1).argmin()]
            ax.annotate(
                short(record.class_name(k), 10),
                middle,
                xytext=(0, 11),  # beside the points: a small cluster would vanish under its name
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=8.5,
                fontweight="bold",
                bbox={
                    "boxstyle": "round,pad=0.15",
                    "fc": "white",
                    "ec": CLASSES[k % len(CLASSES)],
                    "alpha": 0.8,
                },
            )
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color("#cccccc")
