//! End-to-end tests of Capstan on real captures and real services.
