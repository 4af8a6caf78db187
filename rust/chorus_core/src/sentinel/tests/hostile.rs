//! Text made to be slow: nothing but beginnings of secrets. What is counted is the bytes that rules look at, not time.

use super::*;

const TEXT_BYTES: usize = 4 * 1024;

/// Bytes looked at for each byte of the worst text; a rule that reads on to the end of the text would have two thousand.
const WORK_MAX: u64 = 400;

fn work_per_byte(unit: &[u8]) -> u64 {
    let text: Vec<u8> = unit.iter().copied().cycle().take(TEXT_BYTES).collect();
    let sweep = scanner().engine.sweep(&text, true);
    sweep.work.bytes() / TEXT_BYTES as u64
}

#[test]
fn text_of_nothing_but_beginnings_takes_linear_work() {
    let endings =
        ["", ".", "=", " ", "\n", ": \"", "AAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAA.", "a:b", "A1b2C3d4E5f6G7h8-"];
    for rule in built_in() {
        for keyword in rule.keywords {
            for ending in endings {
                let unit = format!("{keyword}{ending}");
                for unit in [unit.clone(), format!("\n{unit}")] {
                    let work = work_per_byte(unit.as_bytes());
                    assert!(work <= WORK_MAX, "{}: {work} for each byte of {unit:?}", rule.id);
                }
            }
        }
    }
}

#[test]
fn text_of_half_secrets_takes_linear_work() {
    let begin = concat!("-----BEGIN RSA PRIV", "ATE KEY-----");
    let units = [
        "eyJ.".to_owned(),
        "eyJAAAAAAAAAAAAA-".to_owned(),
        "eyJAAAAAAAAAAAAA.eyJAAAAAAAAAAAAA.".to_owned(),
        format!("{begin}\n"),
        format!("{begin}AAAA"),
        format!("{begin}\nA: "),
        format!("{begin}\nA: b\n"),
        format!("{begin}\n\n\n"),
        format!("A: {begin}\n"),
        format!("{begin}\nabc def\n"),
        "password=password=password=".to_owned(),
        "data:\n data:\n".to_owned(),
        "data:\n  a: QUJDREVGR0g=\n".to_owned(),
        "kind: Secret\n".to_owned(),
        "kind: Secret\ndata:\n".to_owned(),
        "://a:".to_owned(),
        "machine a login b password ".to_owned(),
        "Private-Lines: 1\nAAAA\n".to_owned(),
    ];
    for unit in units {
        let work = work_per_byte(unit.as_bytes());
        assert!(work <= WORK_MAX, "{work} for each byte of {unit:?}");
    }
}

#[test]
fn a_long_secret_in_small_pieces_takes_linear_work() {
    // What is swept is what could have been let go or grown: not the whole of a key at every byte of it.
    let begin = concat!("-----BEGIN RSA PRIV", "ATE KEY-----\n");
    for (opening, body) in [(begin, "QUJD"), ("eyJhbGciOiJIUzI1NiJ9.eyJ", "QUJD")] {
        let mut redactor = Redactor::new(scanner());
        redactor.push(opening.as_bytes());
        let mut swept = 0;
        for byte in body.bytes().cycle().take(12_000) {
            swept += usize::from(!redactor.waits_with(&[byte]));
            redactor.push(&[byte]);
        }
        assert!(swept < 10, "{opening:?}: swept {swept} times");
    }
}
