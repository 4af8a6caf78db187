//! The form of an entry.

use libp2p::identity::Keypair;
use serde_json::Value;

use crate::{
    Error,
    raft::{
        entry::{self, Draft},
        types::MAX_ENTRY_BYTES,
    },
};

fn draft<'a>(mesh: &'a str, id: &'a str, body: &'a [u8]) -> Draft<'a> {
    Draft { mesh, id, kind: "note", seen: 7, body }
}

#[test]
fn an_entry_is_canonical_json_signed_without_its_signature() {
    let keypair = Keypair::generate_ed25519();
    let author = keypair.public().to_peer_id();
    let (mesh, id) = (entry::ulid(), entry::ulid());
    let body = r#"{"z": 1.0, "a": "\u00e4 \"sig\":\"x\"", "type":"evil","v":1}"#;
    let bytes = entry::make(&keypair, &author, &draft(&mesh, &id, body.as_bytes())).unwrap();
    let view = entry::parse(&bytes).unwrap();
    assert_eq!((view.mesh, view.id, view.kind, view.seen), (mesh.as_str(), id.as_str(), "note", 7));
    assert_eq!(view.verify().unwrap(), author);
    view.check_body().unwrap();
    // Any other reader comes to the same: take the signature out, canonicalise, verify.
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(serde_jcs::to_vec(&value).unwrap(), bytes);
    value.as_object_mut().unwrap().remove("sig");
    let signed = serde_jcs::to_vec(&value).unwrap();
    let text = std::str::from_utf8(&bytes).unwrap();
    let signature = text.split(r#","sig":""#).last().unwrap().split('"').next().unwrap();
    use base64::Engine;
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
    assert!(keypair.public().verify(&signed, &signature));
}

#[test]
fn any_changed_byte_is_noticed() {
    let keypair = Keypair::generate_ed25519();
    let author = keypair.public().to_peer_id();
    let (mesh, id) = (entry::ulid(), entry::ulid());
    let bytes = entry::make(&keypair, &author, &draft(&mesh, &id, br#"{"a":1}"#)).unwrap();
    for place in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[place] ^= 1;
        let accepted = entry::parse(&changed).is_ok_and(|view| view.verify().is_ok());
        assert!(!accepted, "byte {place} of {}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn bad_drafts_are_refused_by_name() {
    let keypair = Keypair::generate_ed25519();
    let author = keypair.public().to_peer_id();
    let (mesh, id) = (entry::ulid(), entry::ulid());
    let make = |draft: &Draft<'_>| entry::make(&keypair, &author, draft);
    assert!(matches!(make(&draft(&mesh, &id, b"[1]")), Err(Error::Invalid(_))));
    assert!(matches!(make(&draft(&mesh, &id, b"{")), Err(Error::Invalid(_))));
    assert!(matches!(make(&draft(&mesh, "short", b"{}")), Err(Error::Invalid(_))));
    let big = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_ENTRY_BYTES));
    assert!(matches!(make(&draft(&mesh, &id, big.as_bytes())), Err(Error::TooLarge(_))));
    let kind = Draft { kind: "Not a word", ..draft(&mesh, &id, b"{}") };
    assert!(matches!(make(&kind), Err(Error::Invalid(_))));
}

#[test]
fn numbers_that_are_not_exact_everywhere_are_refused() {
    let (keypair, mesh, id) = (Keypair::generate_ed25519(), entry::ulid(), entry::ulid());
    let author = keypair.public().to_peer_id();
    let make = |body: &str| entry::make(&keypair, &author, &draft(&mesh, &id, body.as_bytes()));
    for exact in ["9007199254740992", "-9007199254740992", "0.1", "1e15", "1700000000000"] {
        let entry = make(&format!(r#"{{"a":[{{"b":{exact}}}]}}"#)).unwrap();
        entry::parse(&entry).unwrap().check_body().unwrap();
    }
    for inexact in ["9007199254740993", "-9007199254740993", "18446744073709551615", "1e300", "-1e16"] {
        let error = make(&format!(r#"{{"a":[{{"b":{inexact}}}]}}"#)).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{inexact}: {error}");
    }
    // One that another agent signed all the same is not taken by the leader.
    let signed = make(r#"{"a":1}"#).unwrap();
    let forged = std::str::from_utf8(&signed).unwrap().replace(r#"{"a":1}"#, r#"{"a":9007199254740994}"#);
    assert!(matches!(entry::parse(forged.as_bytes()).unwrap().check_body(), Err(Error::Invalid(_))));
}

#[test]
fn ids_are_ordered_by_time_and_unlike() {
    let ids: Vec<String> = (0..1000).map(|_| entry::ulid()).collect();
    assert!(ids.iter().all(|id| entry::is_ulid(id)));
    assert!(ids.windows(2).all(|pair| pair[0][..10] <= pair[1][..10] && pair[0] != pair[1]));
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = entry::parse(&bytes).map(|view| view.verify().is_ok());
        let _ = crate::raft::frames::decode(bytes.into());
    }
}
