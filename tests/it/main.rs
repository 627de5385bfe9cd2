//! One binary for every end-to-end test.

mod bad_input;
mod capstan;
mod captures;
mod export_selects;
mod flows_like_tshark;
mod other_readers;
mod parallel;
mod round_trip;
mod sandbox;
mod server;
mod sql_clients;
mod tools;
mod traffic;
