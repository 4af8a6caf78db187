//! UCXL addresses for Python.

use std::fmt;

use pyo3::{create_exception, exceptions::PyValueError, prelude::*, types::PyString};

use crate::ucxl;

create_exception!(chorus._core, UcxlError, PyValueError, "What is wrong with an address: `field`, `message`, `raw`.");

/// Adds the classes to the extension module.
///
/// # Errors
/// When the interpreter cannot add a name.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("UcxlError", module.py().get_type::<UcxlError>())?;
    module.add_class::<Ucxl>()
}

fn raise(py: Python<'_>, error: ucxl::UcxlError) -> PyErr {
    let raised = UcxlError::new_err(error.to_string());
    let value = raised.value(py);
    // Setting an attribute on a fresh exception does not fail; if it did, the line would still be there.
    let _ = value.setattr("field", error.field.name());
    let _ = value.setattr("message", error.message);
    let _ = value.setattr("raw", error.raw);
    raised
}

/// A UCXL address. It is its text: equal, ordered and hashed by it.
#[pyclass(frozen, eq, ord, hash, str, module = "chorus._core")]
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Ucxl(ucxl::Ucxl);

impl fmt::Display for Ucxl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[pymethods]
impl Ucxl {
    #[new]
    #[pyo3(signature = (agent, role, project, task, path = "", temporal = "*^"))]
    fn new(
        py: Python<'_>,
        agent: &str,
        role: &str,
        project: &str,
        task: &str,
        path: &str,
        temporal: &str,
    ) -> PyResult<Self> {
        ucxl::Ucxl::new(agent, role, project, task, path, temporal).map(Self).map_err(|error| raise(py, error))
    }

    /// Reads an address.
    #[staticmethod]
    fn parse(text: &Bound<'_, PyString>) -> PyResult<Self> {
        // What is no Unicode, lone surrogates, is no address either and shows as such.
        ucxl::Ucxl::parse(&text.to_string_lossy()).map(Self).map_err(|error| raise(text.py(), error))
    }

    #[getter]
    fn agent(&self) -> &str {
        self.0.agent()
    }

    #[getter]
    fn role(&self) -> &str {
        self.0.role()
    }

    #[getter]
    fn project(&self) -> &str {
        self.0.project()
    }

    #[getter]
    fn task(&self) -> &str {
        self.0.task()
    }

    #[getter]
    fn path(&self) -> &str {
        self.0.path()
    }

    #[getter]
    fn temporal(&self) -> String {
        self.0.temporal().to_string()
    }

    /// Whether a component is `any` or the temporal is `*~`.
    #[getter]
    fn is_pattern(&self) -> bool {
        self.0.is_pattern()
    }

    /// The same place at another time.
    fn at(&self, py: Python<'_>, temporal: &str) -> PyResult<Self> {
        self.0.at(temporal).map(Self).map_err(|error| raise(py, error))
    }

    /// Whether `other` is one of the places that this one, as a pattern, stands for.
    fn matches(&self, other: &Self) -> bool {
        self.0.matches(&other.0)
    }

    /// The version that the temporal means among versions 1 to `latest`.
    fn resolve(&self, py: Python<'_>, latest: u32) -> PyResult<u32> {
        self.0.resolve(latest).map_err(|error| raise(py, error))
    }

    fn __repr__(&self) -> String {
        format!("Ucxl.parse('{}')", self.0)
    }

    /// For copies and pickles.
    fn __getnewargs__(&self) -> (&str, &str, &str, &str, &str, String) {
        (self.agent(), self.role(), self.project(), self.task(), self.path(), self.temporal())
    }
}
