"""The catalog in the Virtual Observatory's protocols: cone search, TAP with ADQL, asynchronous jobs."""
