//! Our own broker, as the child process that the broker rows measure: it says its address and backend, serves until its standard input
//! ends, and stops.

use std::path::Path;

use anchorlog_engine::BackendChoice;

use crate::error::PerfError;

/// Serves until standard input ends.
///
/// # Errors
/// When the broker cannot start or stop.
pub(crate) fn serve(_store: &Path, _durable: bool, _backend: BackendChoice) -> Result<(), PerfError> {
    Err(PerfError::Usage("the broker is not built yet".to_owned()))
}
