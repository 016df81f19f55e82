"""Settings from the environment (prefix PECULIAR_) or a .env file; the one place that reads either."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Everything an operator sets. Each field is the variable PECULIAR_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="PECULIAR_", env_file=".env", extra="ignore")

    database_url: str = Field(
        "sqlite:///peculiar.db", description="the catalog; postgresql+psycopg://… in production"
    )
    broker_url: str = Field(
        "memory://",
        description="the queue; memory:// runs a worker inside this process, redis:// or amqp:// in production",
    )
    model_dir: Path = Field(Path("peculiar-models"), description="trained model bundles, one folder each")
    data_roots: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="folders (separated by ':') that an API request may read from, and the nightly run looks in",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    batch_size: int = Field(256, ge=64, le=512, description="paths in one queue message")
    readers: int = Field(
        0, ge=0, le=64, description="processes that read files for a worker; 0: it reads them itself"
    )
    nightly_at: str = Field(
        "16:00",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="when `peculiar beat` starts the nightly run, UTC",
    )

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value
