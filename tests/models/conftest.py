"""Synthetic surveys small enough to train on in seconds, and one bundle of each kind trained on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from models import training
from models.batch import Batch, CutoutBatch, Scores, SpectrumBatch
from models.bundle import Bundle
from models.fit import fit_cutouts, fit_spectra
from models.networks import make_networks
from models.scorer import Scorer
from models.training import MIN_FOR_NETWORK

N_PIXELS = 480
FIRST = 36000
BANDS = ("g", "i")
ENOUGH_FOR_NETWORK = math.ceil(MIN_FOR_NETWORK / 0.7) + 5


def draw_spectra(n: int, seed: int) -> SpectrumBatch:
    """n galaxies of a three-dimensional family at redshifts 0 to 0.05, with uneven noise and 5 % of pixels masked."""
    rng = np.random.default_rng(seed)
    redshift = rng.uniform(0, 0.05, n)
    shift = np.round(np.log10(1 + redshift) / 1e-4).astype(int)
    rest = (np.arange(N_PIXELS) - shift[:, None]) / N_PIXELS
    phase = 2 * np.pi * rest[:, None] * np.array([1, 2, 3])[:, None]
    shape = 1 + 0.2 * (rng.normal(size=(n, 3, 1)) * np.sin(phase)).sum(1)
    sigma = rng.uniform(0.05, 0.3, (n, 1)) * (1 + 0.5 * np.cos(np.arange(N_PIXELS) / 60))
    amplitude = rng.lognormal(1, 0.5, (n, 1))
    flux = amplitude * (shape + sigma * rng.normal(size=shape.shape))
    ivar = np.where(rng.random(shape.shape) < 0.05, 0, (amplitude * sigma) ** -2.0)
    return SpectrumBatch(
        np.where(ivar > 0, flux, 0).astype(np.float32), ivar.astype(np.float32), np.full(n, FIRST), redshift
    )


def draw_cutouts(n: int, seed: int, side: int = 24) -> CutoutBatch:
    """n round galaxies in two bands, of various sizes, colours and brightness, on skies of uneven depth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    width = rng.uniform(1.5, 4, (n, 1, 1, 1))
    peak = rng.lognormal(3, 0.7, (n, 1, 1, 1)) * np.array([1.0, 1.5])[:, None, None]
    peak = peak * rng.lognormal(0, 0.1, (n, 2, 1, 1))
    sigma = rng.uniform(0.5, 2, (n, 1, 1, 1)) * np.ones((n, 2, side, side))
    flux = peak * np.exp(-(x**2 + y**2) / (2 * width**2)) + sigma * rng.normal(size=sigma.shape)
    ivar = np.where(rng.random(sigma.shape) < 0.01, 0, sigma**-2)
    return CutoutBatch(np.where(ivar > 0, flux, 0).astype(np.float32), ivar.astype(np.float32))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The arrays here are small: threads that wait for each other on busy cores would take far longer than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def spectra() -> Callable[[int, int], SpectrumBatch]:
    """(n, seed) → spectra."""
    return draw_spectra


@pytest.fixture(scope="session")
def cutouts() -> Callable[..., CutoutBatch]:
    """(n, seed, side=24) → cutouts of ``bands``."""
    return draw_cutouts


@pytest.fixture(scope="session")
def bands() -> tuple[str, ...]:
    return BANDS


@pytest.fixture(scope="session")
def draw() -> Callable[[str, int, int], Batch]:
    """(kind, n, seed) → a batch of that kind."""
    return lambda kind, n, seed: draw_spectra(n, seed) if kind == "spectrum" else draw_cutouts(n, seed)


@pytest.fixture(scope="session")
def bundles() -> dict[str, Bundle]:
    """A bundle of each kind whose training tried the network, and ``small``, of 60 spectra."""
    n = ENOUGH_FOR_NETWORK
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "LINEAR_EPOCHS", 12)  # simple objects are learned soon
        return {
            "spectrum": fit_spectra(draw_spectra(n, 1), "tiny", fingerprint="1", epochs=1),
            "cutout": fit_cutouts([draw_cutouts(n, 2)], BANDS, "tiny", fingerprint="2", epochs=1),
            "small": fit_spectra(draw_spectra(60, 3), "small", fingerprint="3"),
        }


@pytest.fixture(scope="session")
def scorers(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scorer]:
    """Scorers from those bundles as read from disk; ``networks-…`` have networks that do correct something.

    Training drops a network that does not help, so these get random weights: every promise must hold for them too.
    """
    folder = tmp_path_factory.mktemp("models")
    every = dict(bundles)
    every |= {f"networks-{kind}": with_networks(bundles[kind]) for kind in ("spectrum", "cutout")}
    return {name: Scorer.from_bundle(bundle.save(folder), "cpu") for name, bundle in every.items()}


@pytest.fixture(
    scope="session", params=["spectrum", "cutout", "small", "networks-spectrum", "networks-cutout"]
)
def scorer(request: pytest.FixtureRequest, scorers: dict[str, Scorer]) -> Scorer:
    """Every scorer in turn."""
    return scorers[request.param]


def with_networks(bundle: Bundle, scale: float = 0.05) -> Bundle:
    """The same model with untrained networks, whose last layers have weights of about ``scale``."""
    torch.manual_seed(0)
    shape = Scorer.from_parts(bundle, torch.device("cpu")).preprocessing.shape
    networks = dict(
        zip(("encoder", "decoder"), make_networks(shape, bundle.spec["network"]["n_latent"]), strict=True)
    )
    for network in networks.values():
        torch.nn.init.normal_(last_layer(network).weight, std=scale)
    weights = {
        f"vae.{name}.{key}": value.numpy().copy()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    core = {k: v for k, v in bundle.arrays.items() if not k.startswith(("vae.encoder", "vae.decoder"))}
    spec = {**bundle.spec, "name": "networks", "network": {**bundle.spec["network"], "has_networks": True}}
    return replace(bundle, spec=spec, arrays={**core, **weights})


def last_layer(network: torch.nn.Module) -> Any:
    """The layer that starts at zero."""
    return [layer for layer in network.modules() if hasattr(layer, "weight")][-1]


def numbers(scores: Scores) -> dict[str, np.ndarray]:
    """Every array of Scores by name, parts included."""
    fields = {name: getattr(scores, name) for name in Scores.__dataclass_fields__}
    arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
    return arrays | {f"part {name}": value for name, value in scores.parts.items()}


@pytest.fixture(scope="session", name="with_networks")
def _with_networks() -> Callable[..., Bundle]:
    """(bundle, scale) → the same model with untrained networks, whose last layers have weights of about ``scale``."""
    return with_networks


@pytest.fixture(scope="session", name="numbers")
def _numbers() -> Callable[[Scores], dict[str, np.ndarray]]:
    """Scores → every array in them by name."""
    return numbers
