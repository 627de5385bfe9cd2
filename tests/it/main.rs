//! One binary for every end-to-end test.

mod capstan;
mod flows_like_tshark;
mod round_trip;
