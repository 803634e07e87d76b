"""Inside the instrumented program: sessions, metrics, tracing.

Must never import anything beyond the standard library and `_core`.
"""
