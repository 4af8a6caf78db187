//! The Python module `chorus._core`: handles, bytes and frozen values only, no application logic.

#![allow(missing_docs, reason = "the stub _core.pyi documents what Python sees")]

mod lines;
mod log;
mod ucxl;
mod values;

use pyo3::{create_exception, exceptions::PyException, prelude::*};

use crate::{
    Error,
    core::{self, CoreConfig},
};

create_exception!(chorus._core, CoreError, PyException, "The core said no; `code` is one of the hub's error codes.");

pub(crate) fn to_python(error: &Error) -> PyErr {
    Python::attach(|py| {
        let raised = CoreError::new_err(error.to_string());
        // Setting an attribute on a fresh exception does not fail; if it did, the message would still be there.
        let _ = raised.value(py).setattr("code", error.code());
        raised
    })
}

/// A running core.
#[pyclass(module = "chorus._core", frozen)]
struct Core(core::Core);

#[pymethods]
impl Core {
    #[staticmethod]
    fn start(py: Python<'_>, config_json: &str) -> PyResult<Self> {
        let config = CoreConfig::from_json(config_json).map_err(|error| to_python(&error))?;
        py.detach(|| core::Core::start(&config)).map(Self).map_err(|error| to_python(&error))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.stop()).map_err(|error| to_python(&error))
    }

    fn stats(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.0.stats()).map(|stats| stats.to_string()).map_err(|error| to_python(&error))
    }

    #[pyo3(signature = (role=None))]
    fn set_role(&self, py: Python<'_>, role: Option<&str>) -> PyResult<()> {
        py.detach(|| self.0.set_role(role)).map_err(|error| to_python(&error))
    }

    fn info(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.0.info()).map(|info| info.to_string()).map_err(|error| to_python(&error))
    }
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("BUILD_COMMIT", option_env!("CHORUS_BUILD_COMMIT").unwrap_or("unknown"))?;
    module.add("BUILD_DATE", option_env!("CHORUS_BUILD_DATE").unwrap_or("unknown"))?;
    module.add("CoreError", module.py().get_type::<CoreError>())?;
    module.add_class::<Core>()?;
    module.add_class::<lines::CoreLines>()?;
    log::register(module)?;
    ucxl::register(module)?;
    values::register(module)
}
