"""The PostgreSQL protocol 3.0: messages, types, sessions, a private PostgreSQL for catalogue questions, and the server.
Contains no query logic, and answers no row of telemetry from anywhere but the query engine."""
