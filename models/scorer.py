"""The whole science behind one call: ``Scorer.from_bundle(path).score(batch) -> Scores``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.batch import Batch, CutoutBatch, Scores, SpectrumBatch
from models.bundle import Bundle, load_bundle
from models.calibration import Calibration, Part
from models.cutouts import CutoutPreprocessing
from models.explanation import Explanation
from models.fitted import Fitted
from models.parts import Evidence, weigh
from models.prepared import Prepared
from models.spectra import SpectrumPreprocessing
from models.windows import windows_of

Preprocessing = SpectrumPreprocessing | CutoutPreprocessing
CHUNK = {"spectrum": 256, "cutout": 128}
"""Objects that go through the model at once on a CPU, so that they stay in its caches; other devices take a whole
batch. Scores do not depend on it."""
EXPLAINED_P = 0.05
"""Objects with larger p-values get no explanation; ``models.explain`` gives one of any object."""


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one. Raises ValueError for a device that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device {name} was asked for, but this machine has no usable CUDA device: use cpu or auto"
        )
    return torch.device(name)


class Scorer:
    """A trained model ready to score; immutable, and the same for any batch size."""

    def __init__(
        self,
        spec: dict[str, Any],
        preprocessing: Preprocessing,
        fitted: Fitted,
        calibration: Calibration,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.kind: str = spec["kind"]
        self.preprocessing = preprocessing
        self.fitted = fitted.for_scoring(device)
        self.calibration = calibration
        self.device = device

    @property
    def id(self) -> str:
        return Bundle(self.spec, {}).id

    @classmethod
    def from_bundle(cls, path: str | Path, device: str = "auto") -> Scorer:
        """Load a bundle folder.

        Raises:
            ValueError: not a bundle, a bundle that was changed, or a device that this machine lacks.
        """
        return cls.from_parts(load_bundle(Path(path)), pick_device(device))

    @classmethod
    def from_parts(cls, bundle: Bundle, device: torch.device) -> Scorer:
        spec = bundle.spec
        kind = spec["kind"]
        preprocessing: Preprocessing = (
            SpectrumPreprocessing.from_json(spec["preprocessing"])
            if kind == "spectrum"
            else CutoutPreprocessing.from_json(spec["preprocessing"])
        )
        fitted = Fitted.from_arrays(kind, preprocessing.shape, spec["network"], bundle.arrays)
        return cls(spec, preprocessing, fitted, _calibration_from(bundle), device)

    def score(self, batch: Batch, explained_p: float = EXPLAINED_P) -> Scores:
        """Score n objects, and explain those of p ≤ ``explained_p``. Pure: no file, no state, no randomness.

        Raises:
            ValueError: a batch of the other kind, of another number of bands, or with non-finite values.
        """
        if batch.kind != self.kind:
            raise ValueError(
                f"the model {self.id} scores {self.kind} inputs, this batch is of kind {batch.kind}"
            )
        if len(batch) == 0:
            raise ValueError("a batch needs at least one object")
        # extremes are finite where everything is, and found faster than every pixel is judged
        extremes = [f(a) for a in (batch.flux, batch.ivar) for f in (np.min, np.max)]
        if not (np.isfinite(extremes).all() and extremes[2] >= 0):
            raise ValueError("flux and ivar must be finite and ivar ≥ 0; mask a pixel by ivar = 0")
        size = CHUNK[self.kind] if self.device.type == "cpu" else len(batch)
        with torch.no_grad():
            return Scores.join([self._score(chunk, explained_p) for chunk in _chunks(batch, size)])

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the model's grid, normalised, on the model's device."""
        return self.preprocessing(batch, self.device)  # type: ignore[arg-type]  # kinds match

    def _score(self, batch: Batch, explained_p: float) -> Scores:
        data = self.prepare(batch)
        found = weigh(self.fitted, data)

        def column(values: Tensor, dtype: torch.dtype = torch.float64) -> np.ndarray:
            return values.to(dtype).cpu().numpy()

        parts = {name: column(values) for name, values in found.parts.items()}
        surprisals = self.calibration.surprisals(parts, column(data.covariates))
        score = self.calibration.combine(surprisals)
        p_value = self.calibration.p_value(score)
        p_values = self.calibration.part_p_values(surprisals)
        windows: list[list[dict[str, Any]]] = [[] for _ in p_value]
        explanations: list[bytes | None] = [None] * len(p_value)
        rows = np.flatnonzero(p_value <= explained_p)
        for i, explanation in zip(rows, self._explain(batch, data, found, p_values, rows), strict=True):
            windows[i] = explanation.named_windows()
            explanations[i] = explanation.to_bytes()
        return Scores(
            elbo=column(found.elbo),
            log_px=column(found.log_px),
            log_density=column(found.log_density),
            chi2=column(found.chi2),
            score=score,
            p_value=p_value,
            latent=column(found.latent, torch.float32),
            latent_var=column(found.latent_var, torch.float32),
            responsibilities=column(found.responsibilities, torch.float32),
            snr=column(data.snr),
            parts={**parts, **{f"{name}_p": p for name, p in p_values.items()}},
            windows=windows,
            explanations=explanations,
            flags=[{"outside-domain"} if o > 0 else set() for o in column(data.outside)],
        )

    def _explain(
        self, batch: Batch, data: Prepared, found: Evidence, p_values: dict[str, np.ndarray], rows: np.ndarray
    ) -> Iterator[Explanation]:
        """The explanations of the objects ``rows`` (m,) of the batch."""
        if not len(rows):
            return
        surprisal = {name: 0.0 - np.log10(p_values[name][rows]) for name in self.calibration.combined}
        total = sum(surprisal.values())
        about = self.preprocessing
        data, residual = data.rows(rows), found.residual[rows]
        seen = data.ivar > 0
        grid = (len(rows), *about.shape)
        image = data.x.reshape(grid) if data.image is None else data.image
        measured = seen.reshape(grid) if data.seen is None else data.seen > 0
        planes = (
            torch.where(measured, image, torch.nan),
            self.fitted.model.decode(found.latent[rows]).reshape(grid),
            residual.reshape(grid),
            seen,
        )
        flux, expected, scatter, mask = (plane.cpu().numpy() for plane in planes)
        redshift = batch.redshift[rows] if isinstance(batch, SpectrumBatch) else np.zeros(len(rows))
        windows = windows_of(scatter.reshape(len(rows), -1), mask, about, np.nan_to_num(redshift))
        for i in range(len(rows)):
            yield Explanation(
                flux=flux[i],
                expected=expected[i],
                residual=scatter[i],
                windows=windows[i],
                shares={name: float(s[i] / (total[i] or 1.0)) for name, s in surprisal.items()},
                loglam=about.loglam if isinstance(about, SpectrumPreprocessing) else None,
                bands=about.bands if isinstance(about, CutoutPreprocessing) else (),
            )


def calibration_arrays(calibration: Calibration) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A calibration as JSON and arrays, as ``Scorer.from_parts`` reads it."""
    spec: dict[str, Any] = {"degree": calibration.degree, "combined": list(calibration.combined), "tails": {}}
    arrays = {
        f"calibration.{k}": getattr(calibration, k) for k in ("centre", "width", "low", "high", "scores")
    }
    for name, part in calibration.parts.items():
        spec["tails"][name] = {"shape": part.shape, "spread": part.spread}
        for k in ("location", "log_spread", "quantiles"):
            arrays[f"calibration.{name}.{k}"] = getattr(part, k)
    return spec, arrays


def _calibration_from(bundle: Bundle) -> Calibration:
    spec, arrays = bundle.spec["calibration"], bundle.arrays
    parts = {
        name: Part(
            location=arrays[f"calibration.{name}.location"],
            log_spread=arrays[f"calibration.{name}.log_spread"],
            quantiles=arrays[f"calibration.{name}.quantiles"],
            **tail,
        )
        for name, tail in spec["tails"].items()
    }
    return Calibration(
        centre=arrays["calibration.centre"],
        width=arrays["calibration.width"],
        low=arrays["calibration.low"],
        high=arrays["calibration.high"],
        degree=spec["degree"],
        combined=tuple(spec["combined"]),
        parts=parts,
        scores=arrays["calibration.scores"],
    )


def _chunks(batch: Batch, size: int) -> Iterator[Batch]:
    for k in range(0, len(batch), size):
        rows = slice(k, k + size)
        if isinstance(batch, SpectrumBatch):
            yield SpectrumBatch(batch.flux[rows], batch.ivar[rows], batch.first[rows], batch.redshift[rows])
        else:
            yield CutoutBatch(batch.flux[rows], batch.ivar[rows])
