"""What one writes in an afternoon for the same job: astropy, an eager VAE, scikit-learn, ORM objects.

It reads every file with ``fits.open``, puts spectra into the rest frame by interpolation and cutouts on an asinh
scale, pushes batches through a convolutional VAE with random weights (only the time is of interest), scores the
latents with a mixture of 24 Gaussians, and writes one ORM object per input into SQLite.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

N_LATENT, N_CLUSTERS, BATCH = 16, 24, 64


@dataclass
class Cost:
    """Seconds for some objects."""

    cpu: float = 0.0
    wall: float = 0.0

    @contextmanager
    def counting(self) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall


def night(kind: str, paths: list[str], redshifts: bool = True) -> dict[str, Cost]:
    """What the stages of a night cost; the mixture is fitted off the clock, as a trained model would be.

    Without ``redshifts`` spectra stay in the observed frame, and the pipeline's wide table of results is not opened.
    """
    import torch
    from sklearn.mixture import GaussianMixture

    costs = {stage: Cost() for stage in ("read", "score", "write")}
    with costs["read"].counting():
        objects = [
            open_spectrum(path, redshifts) if kind == "spectrum" else open_cutout(path) for path in paths
        ]
    network = make_network(kind, objects)
    with costs["score"].counting(), torch.no_grad():
        latents, losses = [], []
        for start in range(0, len(objects), BATCH):
            image, weight = prepare(kind, objects[start : start + BATCH])
            mean, log_variance = network["encoder"](image).chunk(2, dim=1)
            drawn = mean + torch.exp(log_variance / 2) * torch.randn(mean.shape)
            residual = network["decoder"](drawn).reshape(image.shape) - image
            kl = (mean.square() + log_variance.exp() - log_variance - 1).sum(dim=1) / 2
            losses.append((residual.square() * weight).flatten(1).sum(dim=1) / 2 + kl)
            latents.append(mean)
        latent, loss = torch.cat(latents).double().numpy(), torch.cat(losses).numpy()
    mixture = GaussianMixture(min(N_CLUSTERS, len(latent) // 4), reg_covar=1e-3, random_state=0).fit(latent)
    with costs["score"].counting():
        density, cluster = mixture.score_samples(latent), mixture.predict(latent)
    with costs["write"].counting():
        write(paths, objects, loss, density, cluster)
    return costs


def open_spectrum(path: str, redshifts: bool) -> dict[str, Any]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        cards, coadd = hdus[0].header, hdus["COADD"].data
        redshift = hdus["SPECOBJ"].data["Z"][0] if redshifts else 0.0
        return {
            "name": f"{cards['PLATEID']}-{cards['MJD']}-{cards['FIBERID']}", "ra": cards["PLUG_RA"],
            "dec": cards["PLUG_DEC"], "loglam": coadd["loglam"] - np.log10(1 + redshift),
            "flux": np.array(coadd["flux"]), "ivar": np.array(coadd["ivar"]),
        }  # fmt: skip


def open_cutout(path: str) -> dict[str, Any]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        cards = hdus[0].header
        good = np.array(hdus["MASK"].data) == 0
        return {
            "name": cards["OBJID"], "ra": cards["RA"], "dec": cards["DEC"],
            "flux": np.array(hdus[0].data), "ivar": good / np.array(hdus["VAR"].data),
        }  # fmt: skip


def prepare(kind: str, objects: list[dict[str, Any]]) -> tuple[Any, Any]:
    import torch

    images, weights = [], []
    for found in objects:
        if kind == "spectrum":
            grid = np.linspace(3.55, 3.93, 1024)
            flux = np.interp(grid, found["loglam"], found["flux"])
            scale = np.median(np.abs(flux)) or 1.0
            images.append(flux[None] / scale)
            weights.append(np.interp(grid, found["loglam"], found["ivar"])[None] * scale**2)
        else:
            noise = 1 / np.sqrt(np.median(found["ivar"][found["ivar"] > 0]))
            images.append(np.arcsinh(np.nan_to_num(found["flux"]) / noise))
            weights.append(found["ivar"] > 0)
    return tuple(torch.from_numpy(np.array(values, dtype=np.float32)) for values in (images, weights))


def make_network(kind: str, objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Four strided convolutions to 16 latent dimensions and back, about 0.6 M parameters."""
    import torch
    from torch import nn

    spectrum = kind == "spectrum"
    convolution: Callable[..., Any] = nn.Conv1d if spectrum else nn.Conv2d
    back: Callable[..., Any] = nn.ConvTranspose1d if spectrum else nn.ConvTranspose2d
    n_in = 1 if spectrum else objects[0]["flux"].shape[0]
    channels = [n_in, 32, 64, 96, 96]
    stride = 4 if spectrum else 2
    down: list[Any] = []
    up: list[Any] = []
    for few, many in itertools.pairwise(channels):
        down += [convolution(few, many, stride, stride), nn.ReLU()]
        up = [back(many, few, stride, stride), nn.ReLU(), *up]
    image, _ = prepare(kind, objects[:1])
    inner = nn.Sequential(*down)(image).shape[1:]
    size = inner.numel()
    return {
        "encoder": nn.Sequential(
            *down, nn.Flatten(), nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 2 * N_LATENT)
        ),
        "decoder": nn.Sequential(
            nn.Linear(N_LATENT, 128), nn.ReLU(), nn.Linear(128, size), nn.Unflatten(1, inner), *up[:-1]
        ),
        "generator": torch.manual_seed(0),
    }


def write(paths: list[str], objects: list[dict[str, Any]], loss: Any, density: Any, cluster: Any) -> None:
    import sqlalchemy as sa
    from sqlalchemy import orm

    class Base(orm.DeclarativeBase):
        pass

    class Result(Base):
        __tablename__ = "results"
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.String, index=True)
        path = sa.Column(sa.String)
        ra = sa.Column(sa.Float)
        dec = sa.Column(sa.Float)
        loss = sa.Column(sa.Float)
        density = sa.Column(sa.Float)
        score = sa.Column(sa.Float, index=True)
        cluster = sa.Column(sa.Integer)

    with tempfile.TemporaryDirectory() as folder:
        engine = sa.create_engine(f"sqlite:///{folder}/results.db")
        Base.metadata.create_all(engine)
        with orm.Session(engine) as session:
            session.add_all(
                Result(
                    name=str(found["name"]), path=path, ra=float(found["ra"]), dec=float(found["dec"]),
                    loss=float(a), density=float(b), score=float(a - b), cluster=int(k),
                )
                for found, path, a, b, k in zip(objects, paths, loss, density, cluster, strict=True)
            )  # fmt: skip
            session.commit()
        engine.dispose()
