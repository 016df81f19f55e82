"""What other people's code imports: ``from peculiar import Client, Scorer``."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Client", "PeculiarError", "Scorer", "__version__"]

if TYPE_CHECKING:
    from models.scorer import Scorer
    from peculiar.client import Client, PeculiarError


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, so it is loaded by the first use of Scorer and not by ``import peculiar``
    if name == "Scorer":
        from models.scorer import Scorer

        return Scorer
    if name in ("Client", "PeculiarError"):
        from peculiar import client

        return getattr(client, name)
    raise AttributeError(f"module 'peculiar' has no attribute {name!r}")
