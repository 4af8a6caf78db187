//! What Python needs of the core without a running agent: identity, sealing, signatures, canonical JSON, the sentinel.
//! Only bytes, strings and handles cross; work that grows with its input runs without the interpreter.

use std::{path::PathBuf, str::FromStr, sync::Mutex, sync::PoisonError};

use libp2p::PeerId;
use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};
use zeroize::Zeroizing;

use super::to_python;
use crate::{Error, crypto, identity, raft, sentinel};

/// Adds these classes and functions to the extension module.
///
/// # Errors
/// When the interpreter cannot add a name.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Identity>()?;
    module.add_class::<RoleKeys>()?;
    module.add_class::<Finding>()?;
    module.add_class::<Scanner>()?;
    module.add_class::<Redactor>()?;
    module.add_function(wrap_pyfunction!(read_vote_file, module)?)?;
    module.add_function(wrap_pyfunction!(read_log, module)?)?;
    module.add_function(wrap_pyfunction!(seal, module)?)?;
    module.add_function(wrap_pyfunction!(open_sealed, module)?)?;
    module.add_function(wrap_pyfunction!(seal_many, module)?)?;
    module.add_function(wrap_pyfunction!(open_many, module)?)?;
    module.add_function(wrap_pyfunction!(canonical_json, module)?)?;
    module.add_function(wrap_pyfunction!(sign_json, module)?)?;
    module.add_function(wrap_pyfunction!(verify_json, module)?)?;
    module.add_function(wrap_pyfunction!(derive_dev_secret, module)?)?;
    module.add_function(wrap_pyfunction!(derive_network_key, module)?)?;
    Ok(())
}

fn raise(error: Error) -> PyErr {
    to_python(&error)
}

fn parse(json: &[u8]) -> PyResult<serde_json::Value> {
    serde_json::from_slice(json).map_err(|e| raise(Error::Invalid(format!("not JSON: {e}"))))
}

/// An agent's Ed25519 key.
#[pyclass(frozen, module = "chorus._core")]
struct Identity(identity::Identity);

#[pymethods]
impl Identity {
    /// Reads the identity at a path, or makes one there when nothing exists.
    #[staticmethod]
    fn load_or_create(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        py.detach(|| identity::Identity::load_or_create(path)).map(Self).map_err(raise)
    }

    /// An identity that lives in memory only.
    #[staticmethod]
    fn generate() -> Self {
        Self(identity::Identity::generate())
    }

    #[getter]
    fn peer_id(&self) -> String {
        self.0.peer_id().to_base58()
    }

    /// The Ed25519 signature over the bytes.
    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let signature = py.detach(|| self.0.sign(message)).map_err(raise)?;
        Ok(PyBytes::new(py, &signature))
    }

    fn __repr__(&self) -> String {
        format!("Identity(peer_id={:?})", self.peer_id())
    }
}

/// What an agent's vote file says, as JSON; nothing when it has been in no mesh.
#[pyfunction]
fn read_vote_file(py: Python<'_>, path: PathBuf) -> PyResult<Option<String>> {
    let said = py.detach(|| raft::VoteFile::read(&path)).map_err(raise)?;
    Ok(said.map(|said| serde_json::json!(said).to_string()))
}

/// Entries of the log in a vote file, committed or not, each as JSON.
#[pyfunction]
fn read_log(py: Python<'_>, path: PathBuf, first: u64, limit: usize) -> PyResult<Vec<Py<PyBytes>>> {
    let lines = py.detach(|| raft::read_log(&path, first, limit)).map_err(raise)?;
    Ok(lines.iter().map(|line| PyBytes::new(py, line).unbind()).collect())
}

/// The role keys of a cluster, as an agent with a role holds them.
#[pyclass(frozen, module = "chorus._core")]
struct RoleKeys(crypto::RoleKeys);

#[pymethods]
impl RoleKeys {
    #[new]
    #[pyo3(signature = (cluster_secret, role = None, *, file = None, old_secrets = Vec::new(), grants = Vec::new()))]
    fn new(
        cluster_secret: &[u8],
        role: Option<&str>,
        file: Option<PathBuf>,
        old_secrets: Vec<Vec<u8>>,
        grants: Vec<(String, String)>,
    ) -> PyResult<Self> {
        let mut keys = match file {
            Some(path) => crypto::RoleKeys::from_file(&path, cluster_secret, role),
            None => crypto::RoleKeys::derive(cluster_secret, role),
        }
        .map_err(raise)?;
        for old in old_secrets {
            keys.add_old_secret(&Zeroizing::new(old)).map_err(raise)?;
        }
        for (reader, role) in grants {
            keys.grant(&reader, &role).map_err(raise)?;
        }
        Ok(Self(keys))
    }

    /// The roles whose holders can read a value for a role.
    #[pyo3(signature = (role = None))]
    fn readers(&self, role: Option<&str>) -> PyResult<Vec<String>> {
        self.0.readers(role).map_err(raise)
    }

    /// Which kind of keys these are: derived from the cluster secret, or of a role keys file.
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    #[getter]
    fn roles(&self) -> Vec<String> {
        self.0.roles().map(str::to_owned).collect()
    }

    fn __repr__(&self) -> String {
        format!("RoleKeys(roles={:?})", self.roles())
    }
}

/// Seals a value to a role and to every role that may read it; no role means every member.
#[pyfunction]
#[pyo3(signature = (keys, role, plain))]
fn seal<'py>(py: Python<'py>, keys: &RoleKeys, role: Option<&str>, plain: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let sealed = py.detach(|| crypto::seal(&keys.0, role, plain)).map_err(raise)?;
    Ok(PyBytes::new(py, &sealed))
}

/// Opens a sealed value with the roles held.
#[pyfunction]
fn open_sealed<'py>(py: Python<'py>, keys: &RoleKeys, sealed: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let plain = py.detach(|| crypto::open(&keys.0, sealed)).map_err(raise)?;
    Ok(PyBytes::new(py, &plain))
}

/// Seals many values for one role, on all cores.
#[pyfunction]
#[pyo3(signature = (keys, role, plains))]
fn seal_many<'py>(
    py: Python<'py>,
    keys: &RoleKeys,
    role: Option<&str>,
    plains: Vec<PyBackedBytes>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let sealed = py
        .detach(|| crypto::seal_many(&keys.0, role, &plains.iter().map(|plain| &**plain).collect::<Vec<_>>()))
        .map_err(raise)?;
    Ok(sealed.iter().map(|sealed| PyBytes::new(py, sealed)).collect())
}

/// Opens many sealed values, on all cores; the first that cannot be opened raises.
#[pyfunction]
fn open_many<'py>(py: Python<'py>, keys: &RoleKeys, sealed: Vec<PyBackedBytes>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let opened = py.detach(|| {
        let opened = crypto::open_many(&keys.0, &sealed.iter().map(|sealed| &**sealed).collect::<Vec<_>>());
        opened.into_iter().collect::<Result<Vec<_>, _>>()
    });
    Ok(opened.map_err(raise)?.iter().map(|plain| PyBytes::new(py, plain)).collect())
}

/// The RFC 8785 form of a JSON document.
#[pyfunction]
fn canonical_json<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let canonical = py.detach(|| crypto::canonical_json(&parse(json)?).map_err(raise))?;
    Ok(PyBytes::new(py, &canonical))
}

/// A JSON object with `sig` added, in RFC 8785 form.
#[pyfunction]
fn sign_json<'py>(py: Python<'py>, identity: &Identity, json: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let signed = py.detach(|| {
        let mut value = parse(json)?;
        crypto::sign_json(identity.0.keypair(), &mut value).and_then(|()| crypto::canonical_json(&value)).map_err(raise)
    })?;
    Ok(PyBytes::new(py, &signed))
}

/// Checks the `sig` of a JSON object against a peer id; raises when it does not fit.
#[pyfunction]
fn verify_json(py: Python<'_>, json: &[u8], peer_id: &str) -> PyResult<()> {
    py.detach(|| {
        let peer = PeerId::from_str(peer_id).map_err(|e| raise(Error::Invalid(format!("peer id {peer_id:?}: {e}"))))?;
        crypto::verify_json(&parse(json)?, &peer).map_err(raise)
    })
}

/// The cluster secret of a development cluster that was given none.
#[pyfunction]
fn derive_dev_secret<'py>(py: Python<'py>, license_id: &str) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &crypto::dev_cluster_secret(license_id))
}

/// The pre-shared key of the network that belongs to a cluster secret.
#[pyfunction]
fn derive_network_key<'py>(py: Python<'py>, cluster_secret: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &crypto::network_key(cluster_secret))
}

/// A secret that was found: the rule, the place and a keyed hash, never the secret.
#[pyclass(frozen, get_all, module = "chorus._core")]
struct Finding {
    rule: String,
    severity: &'static str,
    action: &'static str,
    start: u64,
    end: u64,
    audit: String,
}

#[pymethods]
impl Finding {
    fn __repr__(&self) -> String {
        format!("Finding(rule={:?}, severity={:?}, start={}, end={})", self.rule, self.severity, self.start, self.end)
    }
}

impl From<sentinel::Finding> for Finding {
    fn from(found: sentinel::Finding) -> Self {
        Self {
            rule: found.rule.to_string(),
            severity: found.severity.name(),
            action: found.action.name(),
            start: found.start,
            end: found.end,
            audit: found.audit,
        }
    }
}

fn findings(found: Vec<sentinel::Finding>) -> Vec<Finding> {
    found.into_iter().map(Finding::from).collect()
}

/// Finds secrets by the built-in rules, and by those of a rule file.
#[pyclass(frozen, module = "chorus._core")]
struct Scanner(sentinel::Scanner);

#[pymethods]
impl Scanner {
    #[new]
    #[pyo3(signature = (audit_key = None, *, rules = None))]
    fn new(audit_key: Option<[u8; 32]>, rules: Option<&str>) -> PyResult<Self> {
        let key = audit_key.unwrap_or_else(rand::random);
        let made = match rules {
            None => sentinel::Scanner::with_audit_key(key),
            Some(json) => sentinel::RuleFile::parse(json)
                .map_err(|problems| Error::Invalid(problems.join("\n")))
                .and_then(|file| sentinel::Scanner::with_rules(file, key)),
        };
        made.map(Self).map_err(raise)
    }

    /// What is wrong with a rule file in its JSON form, a sentence for each mistake.
    #[staticmethod]
    fn check_rules(rules: &str) -> Vec<String> {
        sentinel::RuleFile::parse(rules).err().unwrap_or_default()
    }

    /// The secrets in a text, in order; a file's path counts for exceptions.
    #[pyo3(signature = (text, path = None))]
    fn scan(&self, py: Python<'_>, text: &[u8], path: Option<&str>) -> Vec<Finding> {
        findings(py.detach(|| self.0.scan_file(text, path)))
    }

    /// The text with every secret replaced by `[REDACTED:<rule>]`.
    fn redact<'py>(&self, py: Python<'py>, text: &[u8]) -> Bound<'py, PyBytes> {
        let clean = py.detach(|| self.0.redact(text).0);
        PyBytes::new(py, &clean)
    }

    /// A JSON document with the secrets in its strings and names replaced, and what was found.
    fn redact_json<'py>(&self, py: Python<'py>, json: &[u8]) -> PyResult<(Bound<'py, PyBytes>, Vec<Finding>)> {
        let (clean, found) = py.detach(|| {
            let mut value = parse(json)?;
            let found = self.0.redact_json(&mut value);
            Ok::<_, PyErr>((value.to_string(), found))
        })?;
        Ok((PyBytes::new(py, clean.as_bytes()), findings(found)))
    }

    /// Each rule's id, severity and action.
    fn rules(&self) -> Vec<(String, &'static str, &'static str)> {
        self.0.rules().map(|(id, severity, action)| (id.to_owned(), severity.name(), action.name())).collect()
    }
}

/// Takes secrets out of a stream of bytes.
#[pyclass(frozen, module = "chorus._core")]
struct Redactor(Mutex<sentinel::Redactor>);

impl Redactor {
    fn with<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut sentinel::Redactor) -> T + Send) -> T {
        py.detach(|| work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[pymethods]
impl Redactor {
    #[new]
    #[pyo3(signature = (scanner = None))]
    fn new(scanner: Option<&Scanner>) -> PyResult<Self> {
        let scanner = match scanner {
            Some(scanner) => scanner.0.clone(),
            None => sentinel::Scanner::builtin().map_err(raise)?,
        };
        Ok(Self(Mutex::new(sentinel::Redactor::new(scanner))))
    }

    /// A redactor at the beginning of another stream, with the same rules and known secrets.
    fn again(&self, py: Python<'_>) -> Self {
        Self(Mutex::new(self.with(py, |redactor| redactor.again())))
    }

    /// Also takes out these very values; gives how many are long enough to be looked for.
    fn add_secrets(&self, py: Python<'_>, values: Vec<Vec<u8>>) -> PyResult<usize> {
        self.with(py, |redactor| redactor.add_secrets(values.iter().map(Vec::as_slice))).map_err(raise)
    }

    /// Takes the next piece and gives what can go out now.
    fn push<'py>(&self, py: Python<'py>, piece: &[u8]) -> Bound<'py, PyBytes> {
        let out = self.with(py, |redactor| redactor.push(piece));
        PyBytes::new(py, &out)
    }

    /// Says that the stream rests, and gives what is held back only because a token might just have begun.
    fn settle<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let out = self.with(py, sentinel::Redactor::settle);
        PyBytes::new(py, &out)
    }

    /// Says that nothing more comes, and gives the rest.
    fn finish<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let out = self.with(py, sentinel::Redactor::finish);
        PyBytes::new(py, &out)
    }

    /// How many bytes are held back.
    #[getter]
    fn held(&self, py: Python<'_>) -> usize {
        self.with(py, |redactor| redactor.held())
    }

    /// What was found since the last call.
    fn take_findings(&self, py: Python<'_>) -> Vec<Finding> {
        findings(self.with(py, sentinel::Redactor::take_findings))
    }
}
