"""Settings from the environment (prefix PECULIAR_) or a .env file; the one place that reads either."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Everything an operator sets. Each field is the variable PECULIAR_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="PECULIAR_", env_file=".env", extra="ignore")

    database_url: str = Field(
        "sqlite:///peculiar.db", description="the catalog; postgresql+psycopg://… in production"
    )
    vo_database_url: str | None = Field(
        None,
        description="the catalog again, for /vo: of a role that may only read; unset: database_url, read-only",
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
    batch_deadline_s: int = Field(
        300, ge=1, description="seconds after which a worker process that hangs in a batch ends itself"
    )
    readers: int = Field(
        0, ge=0, le=64, description="processes that read files for a worker; 0: it reads them itself"
    )
    nightly_at: str = Field(
        "16:00",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
        description="when `peculiar beat` starts the nightly run, UTC",
    )

    api_keys: Literal["auto", "always"] = Field(
        "auto", description="auto: the API asks for keys unless it listens on loopback; always: there too"
    )
    rate_limit: int = Field(
        600, ge=1, description="requests a minute that the API takes of one key, or of one address without"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="of what worker, beat and serve log: text or json"
    )

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value
