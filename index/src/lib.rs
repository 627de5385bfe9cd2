//! Capstan index.
