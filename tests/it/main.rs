//! One binary for every end-to-end test.

mod flows_like_tshark;
