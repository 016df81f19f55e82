"""Real lenses among real galaxies, and the lenses of the lens-finding challenge: AUROC and recall.

    python -m benchmarks.real_lenses FOLDER [--folds 4]

FOLDER holds the sets below. Nothing is chosen by what is printed here.

1. Normal are 46 galaxies of the Dark Energy Survey (des_grizY_46/i.fits), anomalous 12 real lenses: ten of HST in
   F140W, one of SLACS in F814W, one of Euclid (of which the file holds the survey's own i image). All are brought to
   one band of 33 × 33 pixels of 0.263 arcsec, the widest field that all have, by the overlap of pixels alone. Noise is
   the files', and estimated as the readers do where there is none. **The instruments differ, in resolution, depth and
   mostly band, and no ordinary galaxy was observed by HST here: this measures "unlike these galaxies", not "lens".**
   The row ``S/N`` says how far brightness over noise alone would go. The same once more, with the HST images
   blurred to the survey's seeing and with white noise added until each has the central S/N of a galaxy drawn at
   random: resolution and depth are then alike; band, redshift and kind of galaxy are not.
2. The challenge's images after a denoising autoencoder (bologna_denoised), all of one simulated instrument. Normal
   are those that are no lenses, anomalous the lenses. There are fewer normal ones than a training takes, so both
   the model and the baselines learn from the eight orientations of each. The same with the sides changed, as two in
   three are lenses here and none is ordinary for being commoner.

The normal class is split by object into folds: each is scored by a model trained on the others with the defaults of
`peculiar train`, and the anomalous class by all of them. Figures are means over the folds; recall is the share of
anomalies above the highest normal score of the fold, which a handful of objects sets. The interval is a bootstrap
over the objects; it knows nothing of what another training would have given.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from astropy.io import fits
from scipy.ndimage import gaussian_filter

from models.baselines import baseline_scores
from models.batch import CutoutBatch
from models.fit import fit_cutouts
from models.metrics import RANKING
from models.scorer import Scorer
from workers.readers.noise import estimate_noise
from workers.training import cutout_batches, read_samples

PIXEL = 0.263
"""Arcsec, of the Dark Energy Survey."""
SIZE = 33
"""Pixels on a side: 8.7 arcsec; the narrowest of the lenses' images has 8.8."""
SEEING = 0.88
"""Arcsec FWHM, the survey's median in i (Abbott et al. 2021, ApJS 255, 20)."""
CORE = slice(SIZE // 2 - 2, SIZE // 2 + 3)
"""Pixels along an axis over which the central S/N is taken."""
N_BOOTSTRAP = 200
FWHM_PER_SIGMA = 2.3548
FIGURES = ("auroc", "recall_at_1pc_fpr")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=4)
    options = parser.parse_args()
    galaxies, lenses = des_galaxies(options.folder), real_lenses(options.folder)
    title = "DES galaxies normal, real lenses anomalous"
    measure(galaxies, join(list(lenses.values())), title, options.folds, names=list(lenses))
    lenses = real_lenses(options.folder, SEEING)
    rng = np.random.default_rng(1)
    alike = [b if name.startswith("euclid") else as_deep_as(galaxies, b, rng) for name, b in lenses.items()]
    title = "DES galaxies normal, real lenses of their seeing and depth anomalous"
    measure(galaxies, join(alike), title, options.folds, names=list(lenses))
    not_lenses, challenge = challenge_images(options.folder)
    measure(not_lenses, challenge, "challenge: others normal, lenses anomalous", options.folds, turn=True)
    measure(challenge, not_lenses, "challenge: lenses normal, others anomalous", options.folds, turn=True)


def measure(
    normal: CutoutBatch, anomalies: CutoutBatch, title: str, folds: int, *,
    turn: bool = False, names: Sequence[str] = (),
) -> None:  # fmt: skip
    """Print one task's figures, and by name how many normal objects score above each anomaly."""
    start = time.perf_counter()
    order = np.random.default_rng(0).permutation(len(normal))
    held_out: list[dict[str, np.ndarray]] = []
    found: list[dict[str, np.ndarray]] = []
    for k in range(folds):
        train = rows(normal, np.setdiff1d(order, order[k::folds]))
        train = orientations(train) if turn else train
        test = join([rows(normal, order[k::folds]), anomalies])
        bundle = fit_cutouts([train], ("band0",), "fold", fingerprint="", seed=k)
        scorer = Scorer.from_parts(bundle, torch.device("cpu"))
        scores = scorer.score(test)
        values = {"score": scores.score}
        values |= {name: v for name, v in scores.parts.items() if not name.endswith("_p")}
        values |= {"S/N": scores.snr}
        values |= baseline_scores(scorer.prepare(train), scorer.prepare(test))
        n = len(test) - len(anomalies)
        held_out.append({name: v[:n] for name, v in values.items()})
        found.append({name: v[n:] for name, v in values.items()})
    seconds = time.perf_counter() - start
    print(f"\n{title}: {len(normal)} and {len(anomalies)} images, {folds} folds ({seconds:.0f} s)")
    print(f"  {'':18s} AUROC                 recall above every normal object")
    for name in found[0]:
        a, b = [some[name] for some in held_out], [some[name] for some in found]
        value, (low, high) = figures(a, b), resampled(a, b)
        cells = [f"{v:.3f} ({x:.3f}–{y:.3f})" for v, x, y in zip(value, low, high, strict=True)]
        print(f"  {name:18s} {cells[0]}   {cells[1]}")
    for i, name in enumerate(names):
        above = sum(int((a["score"] > b["score"][i]).sum()) for a, b in zip(held_out, found, strict=True))
        print(f"  {name}: {above} of {len(normal)} normal objects score above it")


def figures(normal: list[np.ndarray], anomalous: list[np.ndarray]) -> np.ndarray:
    """Means over the folds of FIGURES, from the scores of each fold's held-out objects and of all anomalies."""
    values = []
    for a, b in zip(normal, anomalous, strict=True):
        y = np.repeat([0, 1], [len(a), len(b)])
        values.append([RANKING[name](y, np.concatenate([a, b])) for name in FIGURES])
    return np.mean(values, axis=0)


def resampled(normal: list[np.ndarray], anomalous: list[np.ndarray]) -> np.ndarray:
    """(2, n_figures): the 2.5 and 97.5 % points over resampled objects, the same anomalies in all folds."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(N_BOOTSTRAP):
        some = rng.integers(len(anomalous[0]), size=len(anomalous[0]))
        values.append(figures([rng.choice(a, len(a)) for a in normal], [b[some] for b in anomalous]))
    return np.quantile(values, [0.025, 0.975], axis=0)


def des_galaxies(folder: Path) -> CutoutBatch:
    """The reader would take the file, (46, 91, 91), for one object in 46 bands."""
    cube = fits.getdata(folder / "des_grizY_46" / "i.fits").astype(float)
    cut = []
    for image in cube:
        sigma = estimate_noise(image, np.isfinite(image))
        cut.append(rebinned(image, np.full(image.shape, sigma), PIXEL))
    return join(cut)


def real_lenses(folder: Path, fwhm: float = 0.0) -> dict[str, CutoutBatch]:
    """Each lens by name, those of HST blurred by a Gaussian of ``fwhm`` arcsec.

    Those of hst_dolphin have fields of 4.8 arcsec, too narrow for this grid.
    """
    found = {}
    for path in sorted((folder / "real" / "hst_f140w_desi20").glob("*/*_F140W.h5")):
        if path.stem.startswith("psf"):
            continue
        with h5py.File(path) as file:
            image, rms = file["image_data"][()], file["background_rms"][()]
            scale = abs(np.linalg.det(file["transform_pix2angle"][()])) ** 0.5
        image = gaussian_filter(image, fwhm / FWHM_PER_SIGMA / scale)
        found[path.parent.name] = rebinned(image, np.full(image.shape, rms), scale)
    slacs = folder / "real" / "hst_f814w_slacs" / "slacs0946+1006"
    images = [fits.getdata(slacs / f"{name}.fits").astype(float) for name in ("data", "noise_map")]
    scale = json.loads((slacs / "info.json").read_text())["pixel_scale"]
    image = gaussian_filter(images[0], fwhm / FWHM_PER_SIGMA / scale)
    found[slacs.name] = rebinned(image, images[1], scale)
    for path in sorted((folder / "real" / "euclid_q1").glob("*.fits")):
        with fits.open(path) as hdus:
            scale = 3600 * abs(hdus["DES_I_BGSUB"].header["CD2_2"])
            images = [hdus[f"DES_I_{name}"].data.astype(float) for name in ("BGSUB", "RMS")]
        found[f"euclid-{path.stem}"] = rebinned(images[0], images[1], scale)
    return found


def as_deep_as(galaxies: CutoutBatch, lens: CutoutBatch, rng: np.random.Generator) -> CutoutBatch:
    """A batch of one with white noise added until its central S/N is that of one of the galaxies, drawn at random.

    The image's own noise counts as if the blur had left it; it is at most a quarter of the sum.
    """
    chosen = rng.integers(len(galaxies))
    flux, ivar = (a[chosen, 0, CORE, CORE].astype(float) for a in (galaxies.flux, galaxies.ivar))
    snr = flux.sum() / np.sqrt((1 / ivar).sum())
    sigma = lens.flux[0, 0, CORE, CORE].sum() / np.sqrt(ivar.size) / snr
    added = np.sqrt(np.maximum(sigma**2 - 1 / lens.ivar, 0))
    noisy = lens.flux + added * rng.standard_normal(lens.flux.shape)
    return CutoutBatch(noisy.astype(np.float32), np.full(lens.ivar.shape, sigma**-2, np.float32))


def rebinned(image: np.ndarray, sigma: np.ndarray, scale: float) -> CutoutBatch:
    """The centre of a square image of ``scale`` arcsec a pixel on the common grid, as a batch of one.

    Flux is summed by the overlap of pixels, and so is variance, as if the noise of neighbouring pixels were
    independent, which it is not quite in resampled images.

    Raises ValueError for a narrower image.
    """
    n = len(image)
    if n * scale < SIZE * PIXEL:
        raise ValueError(f"the grid is {SIZE * PIXEL:.1f} arcsec wide, the image {n * scale:.1f}")
    left = (np.arange(n) - n / 2) * scale
    edge = (np.arange(SIZE) - SIZE / 2) * PIXEL
    overlap = np.minimum(left + scale, edge[:, None] + PIXEL) - np.maximum(left, edge[:, None])
    share = overlap.clip(0) / scale
    flux, variance = (share @ values @ share.T for values in (image, sigma**2))
    return CutoutBatch(flux[None, None].astype(np.float32), (1 / variance)[None, None].astype(np.float32))


def challenge_images(folder: Path) -> tuple[CutoutBatch, CutoutBatch]:
    """The denoised images that are no lenses, and those that are."""
    with (folder / "bologna_labels.csv").open(newline="") as file:
        table = [row for row in csv.DictReader(file) if row["path"].startswith("bologna_denoised/")]
    out = []
    for label in ("0", "1"):
        paths = [str(folder / row["path"]) for row in table if row["is_lens"] == label]
        samples, left_out = read_samples("cutout", paths)
        if left_out:
            raise RuntimeError(f"the reader refused images: {dict(left_out)}")
        out.append(join([b for b in cutout_batches(samples) if isinstance(b, CutoutBatch)]))
    return out[0], out[1]


def rows(batch: CutoutBatch, index: np.ndarray) -> CutoutBatch:
    return CutoutBatch(batch.flux[index], batch.ivar[index])


def join(batches: Sequence[CutoutBatch]) -> CutoutBatch:
    return CutoutBatch(np.concatenate([b.flux for b in batches]), np.concatenate([b.ivar for b in batches]))


def orientations(batch: CutoutBatch) -> CutoutBatch:
    """Each image turned by quarters, and mirrored: eight times as many."""
    turned = [
        CutoutBatch(np.rot90(b.flux, k, (2, 3)), np.rot90(b.ivar, k, (2, 3)))
        for k in range(4)
        for b in (batch, CutoutBatch(batch.flux[..., ::-1], batch.ivar[..., ::-1]))
    ]
    return join(turned)


if __name__ == "__main__":
    main()
