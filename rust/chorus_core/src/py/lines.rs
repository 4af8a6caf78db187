//! `CoreLines`: the core's own log lines for Python to take.

use pyo3::prelude::*;

use super::to_python;
use crate::trace::Lines;

/// The core's own log lines.
#[pyclass(module = "chorus._core", frozen)]
pub struct CoreLines(Lines);

#[pymethods]
impl CoreLines {
    #[staticmethod]
    fn open(level: &str) -> PyResult<Self> {
        Lines::open(level).map(Self).map_err(|error| to_python(&error))
    }

    fn fileno(&self) -> i32 {
        self.0.descriptor()
    }

    fn take(&self, max: usize) -> PyResult<(Vec<Vec<u8>>, u64)> {
        self.0.take(max).map_err(|error| to_python(&error))
    }

    fn close(&self) {
        self.0.close();
    }
}
