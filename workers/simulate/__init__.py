"""Simulated survey files with planted anomalies, for trying and measuring the program without a download.

``simulate`` in campaign.py writes them. Spectra: stars, galaxies and quasars → spectrograph → pipeline →
speclite. Cutouts: galaxy_images and lensing → light → image_anomalies → cutouts. All templates are analytic.
"""

from workers.simulate.campaign import simulate

__all__ = ["simulate"]
