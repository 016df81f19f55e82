"""What other people's code imports: ``from peculiar import Scorer``."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Scorer", "__version__"]

if TYPE_CHECKING:
    from models.scorer import Scorer


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so it is loaded by the first use of Scorer and not by ``import peculiar``
    if name == "Scorer":
        from models.scorer import Scorer

        return Scorer
    raise AttributeError(f"module 'peculiar' has no attribute {name!r}")
