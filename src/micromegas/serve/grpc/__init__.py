"""gRPC calls on the event loop, as bytes in and bytes out. Knows nothing of what they mean."""

from micromegas.serve.grpc.call import ServerCall
from micromegas.serve.grpc.server import GrpcServer, Handler
from micromegas.serve.grpc.status import CallError, StatusName

__all__ = ["CallError", "GrpcServer", "Handler", "ServerCall", "StatusName"]
