//! Shared load shapes.
