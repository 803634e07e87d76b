"""SQL function `get_payload(process_id, stream_id, block_id)`: the stored payload of a block, as it was received.

Must reach the lake only, never the engine: it runs on the engine's own threads.
"""

from __future__ import annotations

import pyarrow as pa

from micromegas.lake import BlockRow, Lake, LakeError
from micromegas.query.functions import Argument, ScalarFunction


def _block(lake: Lake, process_id: str, stream_id: str, block_id: str) -> BlockRow:
    block = lake.metadata.block(block_id)
    if block is None or (block.process_id, block.stream_id) != (process_id, stream_id):
        raise LakeError(f"unknown block {block_id} of stream {stream_id} of process {process_id}")
    return block


def get_payload_function(lake: Lake) -> ScalarFunction:
    """`get_payload` over a lake; NULL arguments give NULL, an unknown block is an error."""

    def get_payload(process_ids: pa.Array, stream_ids: pa.Array, block_ids: pa.Array) -> pa.Array:
        wanted = list(zip(process_ids.to_pylist(), stream_ids.to_pylist(), block_ids.to_pylist(), strict=True))
        found = [_block(lake, *ids) for ids in wanted if None not in ids]
        payloads = iter(lake.read_payloads(found))
        return pa.array([None if None in ids else next(payloads) for ids in wanted], pa.binary())

    return ScalarFunction(
        "get_payload",
        tuple(Argument(name, pa.utf8()) for name in ("process_id", "stream_id", "block_id")),
        pa.binary(),
        get_payload,
        "The stored payload of a block as it was received: its CBOR envelope of compressed events. An unknown block is "
        "an error.",
        "SELECT left(encode(get_payload('$process', '$log', '$block'), 'hex'), 32) AS begin_of_it",
        volatility="stable",
    )
