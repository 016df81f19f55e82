"""Every reason for which a reader turns a file away: short stable sentences that say what to do.

Reasons are counted and grouped by the catalog, so they hold no sizes, names or numbers of one file; those
go into the detail that stands beside the reason.
"""

from __future__ import annotations

# The file as such.
MISSING = "no such file: check the path"
NOT_A_FILE = "not a regular file: give a file, or a folder to search"
UNREADABLE = "the file cannot be opened: check its permissions and its disk"
EMPTY = "empty file: copy or download it again"
NOT_FITS = "not a FITS file: convert it to FITS"
TRUNCATED = "truncated file: copy or download it again"
DAMAGED_GZIP = "damaged gzip compression: copy or download it again"
TOO_LARGE = "more than 256 MiB of data: give spectra or cutouts, not whole frames or archives"
BROKEN_HEADER = "broken FITS header: check it with fitsverify or write the file again"
BROKEN_DATA = "broken FITS data: check it with fitsverify or write the file again"
TOO_MANY_HDUS = "more than 1000 HDUs: give one object a file"
BROKEN_PACK = "damaged packed file: pack its files again with `peculiar pack`"
NOT_A_PACK = "an HDF5 file that is no pack: make one with `peculiar pack`"
NEWER_PACK = "a pack of another version: pack its files again with `peculiar pack`"
NO_MEMBER = "no such member in the file: check the number behind the #"
NOT_A_PLATE = (
    "an spPlate file without flux, ivar and mask images and a plug map: give it as the survey publishes it"
)
NO_DATA = "neither a spectrum nor an image in the file: give an SDSS or LAMOST spectrum, or an image"

# Spectra.
MISSING_COLUMNS = "spectrum without the columns flux, loglam and ivar: give SDSS, BOSS or SDSS-V spec files"
BAD_COLUMNS = "spectrum columns of an unusable type or length: write one number per pixel in each column"
OFF_GRID = "wavelengths off the 1e-4 dex grid of SDSS: rebin the spectrum to that grid"
NO_GOOD_PIXELS = "no usable pixel: each is masked, not finite or without a positive ivar; nothing to score"
LAMOST_ROWS = "LAMOST spectrum without the rows flux, ivar and mask: give files as the survey publishes them"

# Cutouts.
TOO_SMALL = "image smaller than 16 pixels on a side: cut a larger cutout"
TOO_WIDE = "image larger than 512 pixels on a side: cut cutouts out of it first"
TOO_MANY_PLANES = "more than 12 planes: split a stack of objects into one file per object"
NOT_AN_IMAGE = "array of neither 2 nor 3 dimensions: give a 2-D image, a cube of bands or one band per HDU"
SHAPES_DIFFER = "variance, error or mask extension of another shape than its image: cut both alike"
UNPAIRED = "variance, error or mask extensions that pair with no band: name them after their bands"
UNITS = "flux of a size that float32 cannot hold squared: write it in another unit"
CONSTANT = "constant image: it holds nothing to score"
NOT_SCIENCE = "a PSF, noise map or mask by its name: give science images only"


class Refused(Exception):
    """Raised inside the readers for a file that gives no sample; ``read`` turns it into a Rejection."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
