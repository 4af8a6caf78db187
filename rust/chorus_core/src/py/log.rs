//! The verification of a log at rest, for Python: a folder's files, without a running core.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use pyo3::prelude::*;

use super::to_python;
use crate::log;

/// Adds the class to the extension module.
///
/// # Errors
/// When the interpreter cannot add a name.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LogVerifier>()
}

/// A verification of a log that nobody is writing to.
#[pyclass(frozen, module = "chorus._core")]
struct LogVerifier(Mutex<log::Verifier>);

#[pymethods]
impl LogVerifier {
    /// Begins with the log in a folder.
    #[staticmethod]
    fn open(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| log::Verifier::open(folder));
        opened.map(|verifier| Self(Mutex::new(verifier))).map_err(|error| to_python(&error))
    }

    /// Checks up to `count` more entries; true when all is checked.
    fn step(&self, py: Python<'_>, count: u64) -> PyResult<bool> {
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).step(count))
            .map_err(|error| to_python(&error))
    }

    /// How far it is, as JSON.
    fn so_far(&self, py: Python<'_>) -> String {
        let so_far = py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).so_far());
        serde_json::json!(so_far).to_string()
    }
}
