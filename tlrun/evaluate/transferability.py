"""Scores of how well features or outputs of a trained net suit a labelled set, without training.

Pure functions of arrays in float64. The larger, the better, of all of them; each is compared
between nets or stages on the same images, and says nothing by itself.

    logme, h_score, h_score_shrunk   of features (n, D): any net or stage
    leep, nce                        of the net's probabilities of its own source classes (n, Z)
    logistic_probe, knn_probe        cross-validated accuracy of a classifier on features
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_ITERATIONS = 1000
TOLERANCE = 1e-10  # relative change of the evidence at which it has converged
FOLDS, NEIGHBOURS = 5, 5


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """Log maximum evidence of a Bayesian linear model, in nats per example and class.

    features: (n, D). labels: (n,) integers. One regression y = Fw + noise for each class against
    the rest, w ~ N(0, 1/α), noise ~ N(0, 1/β); α and β maximise the evidence p(y | F), found by
    MacKay's fixed point until it has converged; averaged over classes. You et al., "LogME", ICML
    2021, equations 3 to 5; converged as in "Ranking and Tuning Pre-trained Models", JMLR 2022.
    No intercept, as there. Raises ValueError for other shapes and fewer than two classes.
    """
    f, _, one_hot = _checked(features, labels)
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    kept = s > _negligible(s, f.shape)
    sigma, projected = s[kept] ** 2, u[:, kept].T @ one_hot
    targets = zip(projected.T, (one_hot**2).sum(0), strict=True)
    return float(np.mean([_evidence(sigma, z, y2, *f.shape) for z, y2 in targets]))


def _evidence(sigma: Floats, z: Floats, y2: float, n: int, width: int) -> float:
    """The maximum of log p(y | F) / n. sigma: squared singular values; z: Uᵀy; y2: yᵀy."""
    outside = max(y2 - float(z @ z), 0.0)  # of y, what no w reaches
    tiny = 1e-12 * y2
    alpha = beta = 1.0
    evidence = -np.inf
    for _ in range(MAX_ITERATIONS):
        t = alpha / beta
        m2 = float(np.sum(sigma * (z / (sigma + t)) ** 2))
        error = float(np.sum((z * t / (sigma + t)) ** 2)) + outside
        before, evidence = evidence, _log_evidence(sigma, alpha, beta, m2, error, n, width)
        if abs(evidence - before) <= TOLERANCE * abs(evidence):
            break
        gamma = float(np.sum(sigma / (sigma + t)))
        alpha = gamma / max(m2, tiny)
        beta = max(n - gamma, 1e-12) / max(error, tiny)
        if alpha == 0:  # features of zeros: w explains nothing, whatever its prior
            alpha = 1.0
    return evidence / n


def _log_evidence(
    sigma: Floats, alpha: float, beta: float, m2: float, error: float, n: int, width: int
) -> float:
    """m2: of the posterior's mean, ‖m‖²; error: ‖Fm − y‖²."""
    log_det = float(np.sum(np.log(alpha + beta * sigma))) + (width - len(sigma)) * np.log(alpha)
    fit = beta * error + alpha * m2
    return 0.5 * float(
        width * np.log(alpha) + n * np.log(beta) - log_det - fit - n * np.log(2 * np.pi)
    )


def h_score(features: ArrayLike, labels: ArrayLike) -> float:
    """tr(cov(f)⁺ cov(E[f | y])), between 0 and C − 1 for C classes.

    features: (n, D). labels: (n,). Bao et al., "An Information-Theoretic Approach to
    Transferability", ICIP 2019, definition 2. With UΣVᵀ of the centred features this is
    Σ_c n_c ‖mean of U's rows of class c‖². With D ≥ n − 1 it is C − 1 whatever the labels:
    `h_score_shrunk` is for that. Raises ValueError as `logme`.
    """
    f, classes, one_hot = _checked(features, labels)
    centred = f - f.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    kept = u[:, s > _negligible(s, f.shape)]
    counts = np.bincount(classes)
    means = (one_hot.T @ kept) / counts[:, None]
    return float(np.sum(counts[:, None] * means**2))


def h_score_shrunk(features: ArrayLike, labels: ArrayLike) -> float:
    """The H-score with covariances shrunk as Ledoit and Wolf (2004): tr(cov_δ(f)⁻¹ (1 − δ) cov_y).

    features: (n, D). labels: (n,). Ibrahim et al., "Newer is not always better: Rethinking
    transferability metrics", ECML PKDD 2022 (arXiv 2021). Raises ValueError as `logme`.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    f, classes, one_hot = _checked(features, labels)
    centred = f - f.mean(0)
    n, width = f.shape
    _, s, v = np.linalg.svd(centred, full_matrices=False)
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    variances = s**2 / n
    # (1 − δ) cov + δ μ I, with μ the mean variance; class means lie in the span of V
    scaled = (1 - shrinkage) * variances + shrinkage * variances.sum() / width
    kept = scaled > 0
    counts = np.bincount(classes)
    means = (one_hot.T @ centred) / counts[:, None] @ v[kept].T
    return float((1 - shrinkage) * np.sum(counts[:, None] / n * means**2 / scaled[kept]))


def leep(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean log-likelihood of the labels under P(y | x) = Σ_z P(y | z) θ(x)_z, at most 0.

    probabilities: θ (n, Z), of the net's source classes. labels: (n,). P(y | z) is the empirical
    conditional of Σ_i θ(x_i)_z [y_i = y]. Nguyen et al., "LEEP", ICML 2020, equations 1 and 2.
    Raises ValueError as `logme`.
    """
    theta, classes, one_hot = _checked(probabilities, labels)
    joint = one_hot.T @ theta  # (C, Z)
    mass = joint.sum(0)
    conditional = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    expected = (theta @ conditional.T)[np.arange(len(classes)), classes]
    return float(np.mean(np.log(np.maximum(expected, np.finfo(np.float64).tiny))))


def nce(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """−H(Y | Z), the negative conditional entropy in nats, at most 0.

    probabilities: (n, Z); Z is the most probable source class of an image. labels: (n,). Tran et
    al., "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019, with the
    net's own classes for the source's labels, as Nguyen et al. (2020). Raises ValueError as
    `logme`.
    """
    theta, _, one_hot = _checked(probabilities, labels)
    guessed = np.unique(theta.argmax(1), return_inverse=True)[1]
    joint = one_hot.T @ np.eye(guessed.max() + 1)[guessed]  # (C, Z) counts
    share = joint / joint.sum(0)
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return float(np.sum(joint * logs) / len(guessed))


def logistic_probe(features: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Cross-validated accuracy (0 to 1) of scikit-learn's logistic regression (C = 1) on
    standardised features. features: (n, D). labels: (n,). Raises ValueError as `logme`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return _cross_validated(probe, features, labels, seed)


def knn_probe(features: ArrayLike, labels: ArrayLike, seed: int = 0) -> float:
    """Cross-validated accuracy (0 to 1) by the five nearest neighbours, of the largest cosine.

    features: (n, D). labels: (n,). Raises ValueError as `logme`.
    """
    from sklearn.neighbors import KNeighborsClassifier

    count = min(NEIGHBOURS, len(np.asarray(labels)) // 2)
    probe = KNeighborsClassifier(max(1, count), metric="cosine")
    return _cross_validated(probe, features, labels, seed)


def _cross_validated(probe: object, features: ArrayLike, labels: ArrayLike, seed: int) -> float:
    """Stratified; five folds, or as many as the smallest class has images, but two."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    f, classes, _ = _checked(features, labels)
    sizes = np.bincount(classes)
    if sizes.max() < 2:
        raise ValueError("no class has two labelled images, one to learn from and one to test on")
    folds = int(np.clip(sizes.min(), 2, FOLDS))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The least populated class")
        guessed = cross_val_predict(probe, f, classes, cv=split)
    return float(np.mean(guessed == classes))


def _checked(values: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints, Floats]:
    """(values (n, D), classes (n,) from 0 without gaps, the same one-hot (n, C))."""
    x = np.asarray(values, dtype=np.float64)
    names, classes = np.unique(np.asarray(labels), return_inverse=True)
    if x.ndim != 2 or len(x) != len(classes):
        raise ValueError(f"features of {x.shape} do not go with {len(classes)} labels")
    if not np.isfinite(x).all():
        raise ValueError("features hold a number that is not finite")
    if len(names) < 2:
        raise ValueError("a score needs labels of at least two classes")
    return x, classes.astype(np.int64), np.eye(len(names))[classes]


def _negligible(singular: Floats, shape: tuple[int, ...]) -> float:
    """Below it a singular value is rounding, as in `numpy.linalg.matrix_rank`."""
    return float(singular.max(initial=0.0) * max(shape) * np.finfo(np.float64).eps)
