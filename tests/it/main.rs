//! One binary for every end-to-end test.

mod bad_input;
mod bucket;
mod cable;
mod capstan;
mod captures;
mod explain;
mod export_selects;
mod flows_like_tshark;
mod full_disk;
mod interrupted;
mod killed;
mod live;
mod other_readers;
mod parallel;
mod pipes;
mod power_loss;
mod rights;
mod round_trip;
mod running;
mod sandbox;
mod server;
mod servers;
mod sql_clients;
mod tools;
mod traffic;
mod verify;
