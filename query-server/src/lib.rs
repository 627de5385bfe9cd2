//! Capstan query-server.
