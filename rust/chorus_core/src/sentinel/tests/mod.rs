#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::json;

use super::{
    rules::{Rule, built_in},
    *,
};

mod custom;
mod hostile;
mod wide;

fn scanner() -> Scanner {
    Scanner::with_audit_key([7; 32]).unwrap()
}

fn rule(id: &str) -> &'static Rule {
    built_in().find(|rule| rule.id == id).unwrap()
}

fn redacted(text: &[u8]) -> Vec<u8> {
    scanner().redact(text).0
}

fn streamed(text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut redactor = Redactor::new(scanner());
    let mut out = Vec::new();
    let mut place = 0;
    for cut in cuts {
        out.extend(redactor.push(&text[place..*cut]));
        place = *cut;
    }
    out.extend(redactor.push(&text[place..]));
    out.extend(redactor.finish());
    out
}

#[test]
fn every_rule_finds_its_samples_and_nothing_else() {
    let scanner = scanner();
    for rule in built_in() {
        assert!(!rule.found.is_empty() && !rule.ignored.is_empty(), "{} lacks samples", rule.id);
        for sample in rule.found {
            for text in [sample.to_string(), format!("before {sample} after\n"), format!("(\"{sample}\")")] {
                let found = scanner.scan(text.as_bytes());
                let ours = found.iter().filter(|f| *f.rule == *rule.id).count();
                assert_eq!(ours, 1, "{} in {text:?}: {found:?}", rule.id);
            }
        }
        for sample in rule.ignored {
            let text = format!("before {sample} after");
            let found = scanner.scan(text.as_bytes());
            assert!(found.iter().all(|f| *f.rule != *rule.id), "{} in {text:?}: {found:?}", rule.id);
        }
    }
}

#[test]
fn secrets_are_found_in_strings_of_strings() {
    let scanner = scanner();
    let mut missed = Vec::new();
    for rule in built_in() {
        for sample in rule.found {
            let once = serde_json::to_string(&format!("say {sample} and more")).unwrap();
            for text in [once.clone(), serde_json::to_string(&once).unwrap()] {
                if scanner.scan(text.as_bytes()).is_empty() {
                    missed.push(format!("{} in {text}", rule.id));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn tokens_are_found_in_encoded_addresses() {
    let scanner = scanner();
    let mut missed = Vec::new();
    for rule in built_in() {
        for sample in rule.found.iter().filter(|s| s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)))
        {
            for text in
                [format!("https://h/?q=%22{sample}%22"), format!("a%3D{sample}%26b"), format!("/x/{sample}/y?z")]
            {
                if scanner.scan(text.as_bytes()).is_empty() {
                    missed.push(format!("{} in {text}", rule.id));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn what_is_no_text_gives_nothing_to_a_name() {
    let scanner = scanner();
    let given = [concat!("curl -u admin", ":Gr33n-T3a!x9"), concat!("api_token = ", "x7Kq2LmV9nRt4WzY8bCd")];
    for text in given {
        assert_eq!(scanner.scan(text.as_bytes()).len(), 1, "{text}");
        let half = text.len() / 2;
        for noise in [b"\x00".as_slice(), b"\x07", b"\x7f", b"\xff", b"\xc3\x28"] {
            let [begin, end] = [&text.as_bytes()[..half], &text.as_bytes()[half..]];
            assert!(scanner.scan(&[begin, noise, end].concat()).is_empty(), "{noise:?} in {text}");
        }
    }
    assert_eq!(scanner.scan("curl -u admin:Gr\u{fc}nT33-Tea!".as_bytes()).len(), 1);
}

#[test]
fn a_short_word_in_base64_is_no_token() {
    let scanner = scanner();
    let mark = rule("facebook-token").found[0];
    let word = &mark[mark.find("EAA").unwrap()..];
    for before in ["k4x9QmR7bLw2Vt8ZcY5nDs3JhG6fPa1T/", "ttTdtARJPrRVB83A-VrUl1htPX2DYEBCozPh7fz-"] {
        assert!(scanner.scan(format!("{before}{word}").as_bytes()).is_empty(), "{before}");
    }
    for before in ["/srv/project/Documentation/examples/", "https://graph.example.org/v12/me/accounts/"] {
        assert_eq!(scanner.scan(format!("{before}{word}").as_bytes()).len(), 1, "{before}");
    }
}

#[test]
fn every_rule_compiles() {
    for prober in &scanner().engine.probers {
        assert!(prober.compiles(), "{}", prober.id);
    }
}

#[test]
fn rules_have_names_of_their_own() {
    let mut ids: Vec<_> = built_in().map(|rule| rule.id).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
    assert!(ids.iter().all(|id| id.bytes().all(is_rule_id) && id.len() <= RULE_ID_MAX_BYTES));
    assert!(!ids.contains(&TASK_SECRET_RULE));
}

#[test]
fn redacted_text_has_nothing_left_to_find() {
    for rule in built_in() {
        for sample in rule.found {
            let clean = redacted(sample.as_bytes());
            assert_eq!(redacted(&clean), clean, "{}", String::from_utf8_lossy(&clean));
        }
    }
}

#[test]
fn any_two_pieces_of_a_stream_are_redacted_like_the_whole() {
    for rule in built_in() {
        for sample in rule.found.iter().chain(rule.ignored) {
            let text = format!("x = {sample}\nand more");
            let whole = redacted(text.as_bytes());
            // Of very long ones not every cut: their middle is all alike.
            for cut in (0..=text.len()).step_by(1 + text.len() / 200) {
                let parts = streamed(text.as_bytes(), &[cut]);
                assert_eq!(String::from_utf8_lossy(&parts), String::from_utf8_lossy(&whole), "{} at {cut}", rule.id);
            }
            let bytewise = streamed(text.as_bytes(), &(1..text.len()).collect::<Vec<_>>());
            assert_eq!(String::from_utf8_lossy(&bytewise), String::from_utf8_lossy(&whole), "{} bytewise", rule.id);
        }
    }
}

#[test]
fn what_begins_in_the_rest_of_a_long_secret_does_not_name_it() {
    let long = format!("pwd=x1;password=bfo1_{}https://acme.example/api/run?code=1", "0".repeat(44));
    let text = format!("{long}{} and more", rule("discord-webhook").found[0]);
    let whole = redacted(text.as_bytes());
    for cut in 0..=text.len() {
        assert_eq!(streamed(text.as_bytes(), &[cut]), whole, "at {cut}");
    }
}

/// Pieces with something between them: a secret glued to another can look like more of it until that is gone.
fn pieces_apart() -> impl Strategy<Value = Vec<u8>> {
    let between = prop_oneof![Just(" "), Just("\n"), Just("\""), Just("'\t"), Just(", "), Just("\\n ")];
    proptest::collection::vec((pieces_of(0..2), between), 0..12)
        .prop_map(|parts| parts.into_iter().flat_map(|(piece, end)| [piece, end.into()].concat()).collect())
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    pieces_of(0..12)
}

fn pieces_of(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<Vec<u8>> =
        built_in().flat_map(|r| r.found.iter().chain(r.ignored)).map(|s| s.as_bytes().to_vec()).collect();
    let glue = prop_oneof![
        Just(b" ".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"=".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"".to_vec()),
        Just(b"password: ".to_vec()),
        Just(b"sk-".to_vec()),
        Just("é\u{0}".as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
        "[a-zA-Z0-9_. :/@-]{0,24}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(prop_oneof![proptest::sample::select(samples), glue], count)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_is_redacted_like_the_whole(text in pieces(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let parts = streamed(&text, &cuts);
        let whole = redacted(&text);
        prop_assert_eq!(String::from_utf8_lossy(&parts), String::from_utf8_lossy(&whole));
    }

    #[test]
    fn findings_do_not_depend_on_the_pieces(text in pieces(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut redactor = Redactor::new(scanner());
        let mut place = 0;
        for cut in cuts {
            redactor.push(&text[place..cut]);
            place = cut;
        }
        redactor.push(&text[place..]);
        redactor.finish();
        prop_assert_eq!(redactor.findings(), scanner().scan(&text));
    }

    #[test]
    fn what_was_redacted_scans_clean(text in pieces_apart()) {
        let once = redacted(&text);
        let again = scanner().scan(&once);
        prop_assert!(again.is_empty(), "{:?} in {:?}", again, String::from_utf8_lossy(&once));
    }

    #[test]
    fn text_stays_text(text in pieces()) {
        let text = String::from_utf8_lossy(&text).into_owned();
        prop_assert!(String::from_utf8(redacted(text.as_bytes())).is_ok());
    }

    #[test]
    fn known_secrets_are_found_in_any_pieces(
        secret in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), any::<u8>()], 4..20),
        before in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = [before.as_slice(), &secret, b"\n"].concat();
        let cut = cut.index(text.len() + 1);
        let mut redactor = Redactor::new(scanner());
        redactor.add_secrets([secret.as_slice()]).unwrap();
        let mut out = redactor.push(&text[..cut]);
        out.extend(redactor.push(&text[cut..]));
        out.extend(redactor.finish());
        // Between the markers: the bracket of one may be the last byte that a secret lacks.
        let markers = regex::bytes::Regex::new(r"\[REDACTED:[a-z0-9-]+\]").unwrap();
        for part in markers.split(&out) {
            prop_assert!(!part.windows(secret.len()).any(|w| w == secret.as_slice()));
        }
        prop_assert!(redactor.findings().iter().any(|f| *f.rule == *TASK_SECRET_RULE));
    }

    #[test]
    fn what_is_cut_is_what_known_secrets_cover(
        secrets in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 4..9), 1..5),
        text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'-')], 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let cut = cut.index(text.len() + 1);
        let mut redactor = Redactor::new(scanner());
        redactor.add_secrets(secrets.iter().map(Vec::as_slice)).unwrap();
        let mut redactor = redactor.again();
        let stands = |secret: &Vec<u8>, at: usize| text[at..].starts_with(secret);
        let covered = |place: usize| secrets.iter().any(|secret| {
            (0..=place).any(|at| stands(secret, at) && at + secret.len() > place)
        });
        let mut out = redactor.push(&text[..cut]);
        out.extend(redactor.push(&text[cut..]));
        out.extend(redactor.finish());
        let mut expected = Vec::new();
        for (place, byte) in text.iter().enumerate() {
            if !covered(place) {
                expected.push(*byte);
            } else if place == 0 || !covered(place - 1) || !secrets.iter().any(|secret| {
                (0..place).any(|at| stands(secret, at) && at + secret.len() > place)
            }) {
                expected.extend(b"[REDACTED:task-secret]");
            }
        }
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn json_stays_json(text in pieces()) {
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut value = json!({"a": [text.clone(), {"token": text.clone()}], text.clone(): 1, "n": 1.5});
        let before = value.as_object().unwrap().len();
        scanner().redact_json(&mut value);
        let again: serde_json::Value = serde_json::from_str(&value.to_string()).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(value.as_object().unwrap().len(), before);
    }
}

#[test]
fn a_secret_directly_before_a_word_is_found() {
    let secrets = [
        concat!("AK", "IAX7KQ2LMV4NRTWZY5"),
        concat!("np", "m_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
        concat!("gh", "p_x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"),
    ];
    for secret in secrets {
        for word in ["done", "Done", "DONE", "is", "Failed\n", "done."] {
            if word == "DONE" && secret.starts_with("AK") {
                continue;
            }
            let text = format!("it is {secret}{word} and more");
            assert_eq!(scanner().scan(text.as_bytes()).len(), 1, "{text}");
            for cut in 0..=text.len() {
                let clean = String::from_utf8(streamed(text.as_bytes(), &[cut])).unwrap();
                assert!(clean.starts_with("it is [REDACTED:") && clean.ends_with(" and more"), "{clean} at {cut}");
                assert_eq!(clean.as_bytes(), redacted(text.as_bytes()));
            }
        }
    }
    // Something else that only begins like one.
    let [short, long, _] = secrets;
    for text in [
        format!("{short}DONE"),
        format!("{short}12done"),
        format!("{long}x7Kq2LmV9nRt4Wz"),
        format!("{long}aB"),
        format!("{long}a1"),
        format!("{long}averyverylongsuffix"),
    ] {
        assert!(scanner().scan(text.as_bytes()).is_empty(), "{text}");
    }
}

#[test]
fn ordinary_output_is_not_held_back() {
    let mut redactor = Redactor::new(scanner());
    for line in
        ["print('hello')\n", "$ ls -la\r\n", "100%|████| 3/3 [00:01]\n", "\x1b[32mok\x1b[0m\n", "-----\n", "A: 5\n"]
    {
        assert_eq!(redactor.push(line.as_bytes()), line.as_bytes());
    }
    for prompt in ["Password: ", ">>> ", "progress 45%\r", "print('hello')", "cargo build"] {
        assert_eq!(String::from_utf8(redactor.push(prompt.as_bytes())).unwrap(), prompt);
        assert_eq!(redactor.push(b"\n"), b"\n");
    }
    assert_eq!(redactor.held(), 0);
    assert!(redactor.findings().is_empty());
}

#[test]
fn a_resting_stream_lets_go_of_mere_beginnings_but_of_no_secret() {
    let token = rule("github-token").found[0];
    let mut redactor = Redactor::new(scanner());
    assert_eq!(redactor.push(b"g"), b"");
    assert_eq!(redactor.settle(), b"g");
    assert_eq!(redactor.push(b"it status\n"), b"it status\n");

    assert_eq!(redactor.push(b"gh"), b"");
    assert_eq!(redactor.settle(), b"gh");
    assert_eq!(redactor.push(&token.as_bytes()[2..]), b"");
    assert_eq!(redactor.settle(), b"", "a token may have begun");
    assert_eq!(redactor.push(b"\n"), b"[REDACTED:github-token]\n");
    assert_eq!(redactor.push(b"s"), b"");
    assert_eq!(redactor.settle(), b"s");
    assert_eq!(redactor.push(b"h\npassword=g"), b"h\npassword=");
    assert_eq!(redactor.settle(), b"", "a value may have begun");
}

#[test]
fn the_delay_is_bounded() {
    for opening in ["eyJ", "sk-", "password=", "https://u:", "-----BEGIN RSA PRIV"] {
        let mut redactor = Redactor::new(scanner());
        let opening = opening.replace("PRIV", concat!("PRIV", "ATE KEY-----\n"));
        let mut out = redactor.push(opening.as_bytes()).len();
        for _ in 0..200 {
            out += redactor.push(&[b'A'; 999]).len();
            assert!(redactor.held() <= 33 * 1024, "{opening}: {}", redactor.held());
        }
        out += redactor.push(b"\n").len();
        assert!(redactor.held() <= 1 || out > 0, "{opening}");
    }
}

#[test]
fn a_secret_longer_than_its_rule_allows_for_leaves_nothing_behind() {
    let jwt = rule("jwt").found[0];
    let long = format!("{jwt}{}\nnext", "x9-".repeat(20_000));
    assert_eq!(redacted(long.as_bytes()), b"[REDACTED:jwt]\nnext");
    assert_eq!(streamed(long.as_bytes(), &[10, 9000, 9001, 40_000]), b"[REDACTED:jwt]\nnext");
}

#[test]
fn a_secret_too_long_for_two_rules_ends_where_both_do() {
    // The first rule's alphabet has no dot, the second's has.
    let token =
        concat!("ZXlKaGJHY2lPaU", "d5BlJdqUEWacVm3NiIw1LrMqPt0JqAJodkBPlHgkQBEiWOtltbmhhFPAc1ezizerLIw7ILj2PNulBsNN");
    let text = format!("password: {token}{}.after.it and more", "x".repeat(100));
    let whole = redacted(text.as_bytes());
    assert_eq!(String::from_utf8_lossy(&whole), "password: [REDACTED:jwt-in-base64] and more");
    for cut in 0..text.len() {
        let parts = streamed(text.as_bytes(), &[cut]);
        assert_eq!(String::from_utf8_lossy(&parts), String::from_utf8_lossy(&whole), "at {cut}");
    }
    let bytewise = streamed(text.as_bytes(), &(1..text.len()).collect::<Vec<_>>());
    assert_eq!(String::from_utf8_lossy(&bytewise), String::from_utf8_lossy(&whole));
}

#[test]
fn overlapping_findings_become_one() {
    let text = b"Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVP-mB92K27uhbUJU1p\n";
    let (clean, findings) = scanner().redact(text);
    assert_eq!(clean, b"Authorization: Bearer [REDACTED:jwt]\n");
    assert_eq!(findings.len(), 1);
}

#[test]
fn bytes_that_are_no_text_pass_unchanged() {
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert_eq!(redacted(&noise), noise);
    assert_eq!(streamed(&noise, &[1, 2, 77, 5000]), noise);
}

#[test]
fn names_say_that_json_values_are_secret() {
    let mut value = json!({"password": "x7Kq2LmV9nRt4WzY", "note": "x7Kq2LmV9nRt4WzY", "tokens": ["x7Kq2LmV9nRt4WzY"]});
    let findings = scanner().redact_json(&mut value);
    assert_eq!(value["password"], "[REDACTED:assigned-secret]");
    assert_eq!(value["note"], "x7Kq2LmV9nRt4WzY");
    assert_eq!((findings[0].start, findings[0].end), (0, 16));
}

#[test]
fn secrets_in_names_of_json_are_found_and_stay_apart() {
    let token = rule("github-token").found[0];
    let mut value = json!({token: 1, format!("{token}x"): 2});
    assert_eq!(scanner().redact_json(&mut value).len(), 2);
    assert_eq!(value, json!({"[REDACTED:github-token]": 1, "[REDACTED:github-token]#2": 2}));
}

#[test]
fn audits_tell_secrets_apart_without_telling_them() {
    let token = rule("github-token").found[0];
    let text = format!("{token} {token} {token}x");
    let findings = scanner().scan(text.as_bytes());
    assert_eq!(findings[0].audit, findings[1].audit);
    assert_ne!(findings[0].audit, findings[2].audit);
    assert_ne!(findings[0].audit, Scanner::with_audit_key([8; 32]).unwrap().scan(token.as_bytes())[0].audit);
    assert_eq!(findings[0].audit.len(), 16);
}

#[test]
fn denied_is_reported() {
    let key = rule("private-key").found[0];
    assert!(denied(&scanner().scan(key.as_bytes())));
    assert!(!denied(&scanner().scan(b"password=x7Kq2LmV9nRt4WzY\n")));
}

#[test]
fn places_in_a_stream_count_from_its_beginning() {
    let token = rule("github-token").found[0];
    let text = format!("{}\n{token}\n", "line\n".repeat(1000));
    let mut redactor = Redactor::new(scanner());
    for piece in text.as_bytes().chunks(7) {
        redactor.push(piece);
    }
    redactor.finish();
    let whole = scanner().scan(text.as_bytes());
    assert_eq!(redactor.findings(), whole);
    assert_eq!(redactor.take_findings().len(), 1);
    assert!(redactor.findings().is_empty());
}

#[test]
fn short_or_huge_literals_are_told_apart() {
    let mut redactor = Redactor::new(scanner());
    assert_eq!(redactor.add_secrets([b"abc".as_slice()]).unwrap(), 0);
    assert_eq!(redactor.add_secrets([b"abcd".as_slice(), b"multi\nline", b"x"]).unwrap(), 2);
    assert_eq!(redactor.add_secrets([[0; 70_000].as_slice()]).unwrap_err().code(), "too_large");
    assert_eq!(redactor.push(b"xabcdx mul"), b"x[REDACTED:task-secret]x ");
    assert_eq!(redactor.push(b"ti\nline."), b"[REDACTED:task-secret].");
}

/// Prints how fast ordinary text is scanned: `cargo test --release scan_speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn scan_speed() {
    let source = include_str!("../../../../../Cargo.lock").repeat(40);
    let scanner = scanner();
    let begin = std::time::Instant::now();
    let found = scanner.scan(source.as_bytes()).len();
    #[allow(clippy::cast_precision_loss)]
    let rate = source.len() as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s, {found} findings in {} bytes", source.len());
}
