//! One binary for every end-to-end test.

mod bad_input;
mod capstan;
mod flows_like_tshark;
mod round_trip;
mod servers;
