"""The catalog: objects, observations, scores, clusters, labels, runs and failures in SQLite or PostgreSQL."""
