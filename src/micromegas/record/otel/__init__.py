"""The OpenTelemetry API on top of the recorder: what instrumented libraries tell, without OpenTelemetry's SDK.

Needs `opentelemetry-api` (`pip install 'micromegas[otel]'`), which only the modules beside this one import. How its
terms become ours stands in docs/instrumentation.md.
"""


def install_otel(*, follow_sampling: bool = False) -> None:
    """Record what instrumented libraries tell the OpenTelemetry API: set its tracer, meter and logger providers.

    To be called once, before or after `init()`; while nothing records, traces are only passed on. Instrumentations that
    ran before are connected, too. `follow_sampling`: don't record spans below a remote parent that is not sampled;
    otherwise everything is recorded, and the flag passed on as it came. Callbacks of observable instruments are called
    every `gauge_period` of `init()`.

    Errors: ImportError without `opentelemetry-api`; RuntimeError when the API has providers already, which it takes
    once.
    """
    try:
        from micromegas.record.otel.install import install
    except ModuleNotFoundError as error:
        raise ImportError(
            f"install_otel needs the package opentelemetry-api (no module {error.name!r}): "
            "pip install 'micromegas[otel]'"
        ) from error
    install(follow_sampling=follow_sampling)
