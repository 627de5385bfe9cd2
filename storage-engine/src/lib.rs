//! Capstan storage-engine.
