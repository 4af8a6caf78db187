//! Signatures of peers over bytes and over JSON. A peer id carries its Ed25519 public key inline, so a name is all
//! that verification needs.

use base64::{Engine, prelude::BASE64_STANDARD};
use libp2p::{
    PeerId,
    identity::{KeyType, Keypair, PublicKey},
};
use serde_json::Value;

use super::canonical::canonical_without;
use crate::{Error, Result};

/// The member of a signed object that holds the signature.
const SIGNATURE: &str = "sig";

/// Multihash code under which a peer id holds its public key itself rather than a hash of it.
const IDENTITY_MULTIHASH: u64 = 0;

/// Adds `sig`: the base64 Ed25519 signature over the canonical JSON of the object without `sig`.
///
/// # Errors
/// `Invalid` when the value is no object or has no canonical form.
pub fn sign_json(keypair: &Keypair, value: &mut Value) -> Result<()> {
    let object = value.as_object_mut().ok_or_else(|| Error::Invalid("only a JSON object can be signed".into()))?;
    let bytes = canonical_without(object, SIGNATURE)?;
    let signature = keypair.sign(&bytes).map_err(|e| Error::Internal(e.to_string()))?;
    object.insert(SIGNATURE.into(), Value::String(BASE64_STANDARD.encode(signature)));
    Ok(())
}

/// Checks that `peer` signed the object.
///
/// # Errors
/// `Tampered` when the signature is missing or does not fit; `Invalid` when the value cannot have been signed.
pub fn verify_json(value: &Value, peer: &PeerId) -> Result<()> {
    let object = value.as_object().ok_or_else(|| Error::Invalid("only a JSON object can be signed".into()))?;
    let signature = object
        .get(SIGNATURE)
        .and_then(Value::as_str)
        .ok_or_else(|| Error::Tampered("the signature is missing".into()))?;
    let signature =
        BASE64_STANDARD.decode(signature).map_err(|_| Error::Tampered("the signature is not base64".into()))?;
    verify_bytes(&canonical_without(object, SIGNATURE)?, &signature, peer)
}

/// Checks that `peer` signed the bytes.
///
/// # Errors
/// `Tampered` when the signature does not fit; `Invalid` when the peer id carries no Ed25519 key.
pub fn verify_bytes(message: &[u8], signature: &[u8], peer: &PeerId) -> Result<()> {
    if public_key_of(peer)?.verify(message, signature) {
        Ok(())
    } else {
        Err(Error::Tampered(format!("the signature is not that of {peer}")))
    }
}

/// The Ed25519 public key inside a peer id.
///
/// # Errors
/// `Invalid` for peer ids that hold another kind of key or only the hash of one.
pub fn public_key_of(peer: &PeerId) -> Result<PublicKey> {
    let hash = peer.as_ref();
    let key = (hash.code() == IDENTITY_MULTIHASH)
        .then(|| PublicKey::try_decode_protobuf(hash.digest()).ok())
        .flatten()
        .filter(|key| key.key_type() == KeyType::Ed25519);
    key.ok_or_else(|| Error::Invalid(format!("the peer id {peer} carries no Ed25519 public key")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_signed_object_verifies_in_any_order_of_members() {
        let key = Keypair::generate_ed25519();
        let mut value = json!({"z": 1, "a": {"y": [1.0, "é"], "x": null}});
        sign_json(&key, &mut value).unwrap();
        let reordered: Value =
            serde_json::from_str(&format!(r#"{{"sig":{},"a":{{"x":null,"y":[1,"\u00e9"]}},"z":1}}"#, value["sig"]))
                .unwrap();
        verify_json(&reordered, &key.public().to_peer_id()).unwrap();
    }

    #[test]
    fn signing_twice_replaces_the_signature() {
        let key = Keypair::generate_ed25519();
        let mut value = json!({"a": 1, "sig": "old"});
        sign_json(&key, &mut value).unwrap();
        let first = value.clone();
        sign_json(&key, &mut value).unwrap();
        assert_eq!(value, first);
    }

    #[test]
    fn any_change_is_found() {
        let key = Keypair::generate_ed25519();
        let peer = key.public().to_peer_id();
        let mut value = json!({"a": 1});
        sign_json(&key, &mut value).unwrap();

        let mut changed = value.clone();
        changed["a"] = json!(2);
        assert_eq!(verify_json(&changed, &peer).unwrap_err().code(), "tampered");
        let mut extended = value.clone();
        extended["b"] = json!(1);
        assert_eq!(verify_json(&extended, &peer).unwrap_err().code(), "tampered");
        assert_eq!(verify_json(&value, &PeerId::random()).unwrap_err().code(), "invalid");
        let other = Keypair::generate_ed25519().public().to_peer_id();
        assert_eq!(verify_json(&value, &other).unwrap_err().code(), "tampered");
        for sig in [json!(null), json!(""), json!("%%"), json!("AAAA")] {
            let mut broken = value.clone();
            broken["sig"] = sig;
            assert_eq!(verify_json(&broken, &peer).unwrap_err().code(), "tampered");
        }
        assert_eq!(verify_json(&json!([1]), &peer).unwrap_err().code(), "invalid");
    }
}
