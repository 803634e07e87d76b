"""An HTTP proxy of our own, which forwards, tunnels or refuses, and keeps what it was asked."""

from __future__ import annotations

import select
import socket
import urllib.parse
from http.server import BaseHTTPRequestHandler

from servers.threaded_http import ThreadedHttpServer


class HttpProxy(ThreadedHttpServer):
    """Forwards requests in absolute form, and tunnels; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.refuses = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _note(self) -> bool:
                owner.asked.append((self.command, self.path, self.headers["proxy-authorization"]))
                if owner.refuses:
                    self.send_response(407)
                    self.send_header("content-length", "0")
                    self.end_headers()
                return owner.refuses

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self._note():
                    return
                url = urllib.parse.urlsplit(self.path)
                with socket.create_connection((url.hostname, url.port)) as upstream:
                    head = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nconnection: close\r\n"
                    for name, value in self.headers.items():
                        if name.lower() not in ("host", "connection", "proxy-authorization"):
                            head += f"{name}: {value}\r\n"
                    upstream.sendall(head.encode() + b"\r\n" + body)
                    while chunk := upstream.recv(65536):
                        self.wfile.write(chunk)
                self.close_connection = True

            def do_CONNECT(self) -> None:
                if self._note():
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port))) as upstream:
                    self.wfile.write(b"HTTP/1.1 200 go on\r\n\r\n")
                    ends = [self.connection, upstream]
                    while True:
                        ready, _, _ = select.select(ends, [], [], 20)
                        for end in ready:
                            chunk = end.recv(65536)
                            if not chunk:
                                self.close_connection = True
                                return
                            ends[1 - ends.index(end)].sendall(chunk)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(Handler)
        self.server.handle_error = lambda *_: None
