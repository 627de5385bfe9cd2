//! The server as clients meet it, over a socket and tables in memory.

mod clients;
mod doors;
mod errors;
mod export;
mod fixture;
mod metadata;
mod prepared;
mod query;
