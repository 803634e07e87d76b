"""Front doors of the lake. Each turns a protocol's requests into `QueryRequest`s; query logic never lives here."""
