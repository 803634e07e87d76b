"""Flight SQL over gRPC: messages, commands, types on the wire, catalogue answers and the server. Knows no views and
plans no SQL."""
