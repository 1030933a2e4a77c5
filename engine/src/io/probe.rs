//! Facts about a directory, and the choice of a backend.
