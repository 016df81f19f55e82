"""Where Alembic enters: runs the migrations on the connection that service.catalog.engine hands over."""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError

from service.catalog.schema import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    msg = "migrations run through `peculiar db upgrade`, which brings the connection"
    raise CommandError(msg)

# SQLite alters a table by copying it, which Alembic calls a batch.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
