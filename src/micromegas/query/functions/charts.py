"""Functions for dashboards: colours, interpolation, bins of axes."""

import pyarrow as pa

from micromegas import _engine
from micromegas.query.functions.scalar import Argument, ScalarFunction

_COLOR = "a colour is 0xRRGGBBAA"


def _numbers(*names: str) -> tuple[Argument, ...]:
    return tuple(Argument(name, pa.float64()) for name in names)


CHART_FUNCTIONS = (
    ScalarFunction(
        "rgba",
        _numbers("red", "green", "blue", "alpha"),
        pa.uint32(),
        _engine.rgba,
        f"A colour of components from 0 to 1; those beyond are taken for the nearest. As a number, {_COLOR}.",
        "SELECT to_hex(CAST(rgba(1.0, 0.5, 0.0, 1.0) AS BIGINT)) AS orange",
    ),
    ScalarFunction(
        "lerp_color",
        (Argument("from", pa.int64()), Argument("to", pa.int64()), *_numbers("t")),
        pa.uint32(),
        _engine.lerp_color,
        f"Between two colours (t from 0 to 1), each component by itself; {_COLOR}.",
        "SELECT to_hex(CAST(lerp_color(rgba(0, 0, 0, 1), rgba(1, 1, 1, 1), 0.5) AS BIGINT)) AS grey",
    ),
    ScalarFunction(
        "color_scale",
        (Argument("name", pa.utf8()), *_numbers("t", "alpha")),
        pa.uint32(),
        _engine.color_scale,
        "The colour at a place (0 to 1) of a scale: viridis, magma, plasma, inferno, cividis or turbo, in upper or "
        "lower case. An error for other names.",
        "SELECT to_hex(CAST(color_scale('viridis', 0.5, 1.0) AS BIGINT)) AS color",
    ),
    ScalarFunction(
        "lerp",
        _numbers("a", "b", "t"),
        pa.float64(),
        _engine.lerp,
        "a + (b - a) · t: what is at the share t of the way from a to b.",
        "SELECT lerp(10.0, 20.0, 0.25) AS x",
    ),
    ScalarFunction(
        "unlerp",
        _numbers("a", "b", "x"),
        pa.float64(),
        _engine.unlerp,
        "(x - a) / (b - a): at which share of the way from a to b x is; beyond 0 and 1 outside, not finite where a is "
        "b.",
        "SELECT unlerp(10.0, 20.0, 12.5) AS t",
    ),
    ScalarFunction(
        "bin_center",
        _numbers("x", "size"),
        pa.float64(),
        _engine.bin_center,
        "The multiple of size that is nearest to x, the greater one halfway between two.",
        "SELECT bin_center(value, 10.0) AS ms, count(*) AS n FROM measures WHERE name = 'frame_time' GROUP BY ms "
        "ORDER BY ms",
    ),
)
