//! Capstan dissect.
