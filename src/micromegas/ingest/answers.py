"""What an endpoint answers instead of success, and how each protocol writes it. Never more of a fault than its name."""

from __future__ import annotations

import json
from typing import Protocol

from micromegas.wire.varint import varint

Header = tuple[str, str]


class Answer(Exception):
    """An answer other than success; ends the handling of the request."""

    def __init__(self, status: int, text: str, *headers: Header) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers


class AnswerWriter(Protocol):
    """How answers look to the senders of one protocol."""

    def success(self) -> tuple[list[Header], bytes]: ...
    def refusal(self, status: int, text: str) -> tuple[list[Header], bytes]: ...


class PlainAnswers:
    """A text that says what is wrong; success says nothing but `headers`."""

    def __init__(self, *headers: Header) -> None:
        self._headers = list(headers)

    def success(self) -> tuple[list[Header], bytes]:
        return self._headers, b""

    def refusal(self, status: int, text: str) -> tuple[list[Header], bytes]:
        return [("content-type", "text/plain; charset=utf-8")], text.encode()


PROTOBUF_TYPE = "application/x-protobuf"
JSON_TYPE = "application/json"

# google.rpc.Code by HTTP status.
RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 415: 3, 500: 13, 503: 14}
RPC_UNKNOWN = 2


class OtlpAnswers:
    """An empty export response, or a `google.rpc.Status`, in the encoding of the request."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._headers = [("content-type", JSON_TYPE if is_json else PROTOBUF_TYPE)]

    def success(self) -> tuple[list[Header], bytes]:
        return self._headers, b"{}" if self._is_json else b""

    def refusal(self, status: int, text: str) -> tuple[list[Header], bytes]:
        code = RPC_CODES.get(status, RPC_UNKNOWN)
        if self._is_json:
            return self._headers, json.dumps({"code": code, "message": text}).encode()
        message = text.encode()
        return self._headers, b"\x08%c\x12" % code + varint(len(message)) + message
