"""The query API over HTTP: statements in JSON, rows as JSON, CSV or Arrow; traces for Perfetto."""
