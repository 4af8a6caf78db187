//! Text in UTF-16 and UTF-32, by itself and amid plain text, at once and in pieces.

use super::*;

const WIDTHS: [usize; 2] = [2, 4];

fn encoded(text: &str, width: usize, big_endian: bool) -> Vec<u8> {
    let units = |c: char| -> Vec<u8> {
        if width == 4 {
            let code = c as u32;
            return if big_endian { code.to_be_bytes().to_vec() } else { code.to_le_bytes().to_vec() };
        }
        let mut buffer = [0; 2];
        c.encode_utf16(&mut buffer)
            .iter()
            .flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() })
            .collect()
    };
    text.chars().flat_map(units).collect()
}

fn encodings() -> impl Iterator<Item = (usize, bool)> {
    WIDTHS.into_iter().flat_map(|width| [(width, false), (width, true)])
}

#[test]
fn every_rule_finds_its_samples_in_every_encoding() {
    let scanner = scanner();
    for rule in built_in() {
        for sample in rule.found.iter().filter(|sample| sample.is_ascii()) {
            let text = format!("\u{feff}vor, \u{442}\u{435}\u{43a}\u{441}\u{442} \u{4e2d}: {sample}\r\nend");
            let plain = scanner.scan(text.as_bytes());
            let clean = String::from_utf8(scanner.redact(text.as_bytes()).0).unwrap();
            for (width, big_endian) in encodings() {
                let wide = encoded(&text, width, big_endian);
                let (redacted, found) = scanner.redact(&wide);
                assert_eq!(
                    redacted,
                    encoded(&clean, width, big_endian),
                    "{} in {text:?}, {width} {big_endian}",
                    rule.id
                );
                for (ours, theirs) in found.iter().zip(&plain) {
                    assert_eq!((&ours.rule, &ours.audit), (&theirs.rule, &theirs.audit));
                    let (start, end) = (theirs.start as usize, theirs.end as usize);
                    let before = encoded(&text[..start], width, big_endian).len();
                    let secret = encoded(&text[start..end], width, big_endian);
                    assert_eq!((ours.start as usize, ours.end as usize), (before, before + secret.len()));
                }
            }
        }
    }
}

#[test]
fn a_secret_in_wide_characters_is_cut_from_a_stream_of_plain_ones() {
    let token = rule("github-token").found[0];
    for (width, big_endian) in encodings() {
        let wide = |text: &str| encoded(text, width, big_endian);
        for before in ["", "x", "plain\n", "\u{e9}", "abc "] {
            let text = [before.as_bytes(), &wide(&format!("PASSWORD={token}\n")), b"\nplain"].concat();
            let clean = [before.as_bytes(), &wide("PASSWORD=[REDACTED:github-token]\n"), b"\nplain"].concat();
            assert_eq!(redacted(&text), clean, "{before:?} {width} {big_endian}");
            for cut in 0..=text.len() {
                assert_eq!(streamed(&text, &[cut]), clean, "{before:?} {width} {big_endian} at {cut}");
            }
            assert_eq!(streamed(&text, &(1..text.len()).collect::<Vec<_>>()), clean, "{before:?} bytewise");
        }
    }
}

#[test]
fn known_secrets_are_found_in_every_encoding() {
    for (width, big_endian) in encodings() {
        let text = encoded("it says: hunter2 and more", width, big_endian);
        for cut in 0..=text.len() {
            let mut redactor = Redactor::new(scanner());
            redactor.add_secrets([b"hunter2".as_slice()]).unwrap();
            let mut out = redactor.push(&text[..cut]);
            out.extend(redactor.push(&text[cut..]));
            out.extend(redactor.finish());
            assert_eq!(out, encoded("it says: [REDACTED:task-secret] and more", width, big_endian), "at {cut}");
        }
    }
}

#[test]
fn a_secret_at_the_very_end_leaves_whole_characters() {
    let token = rule("github-token").found[0];
    for (width, big_endian) in encodings() {
        let text = encoded(&format!("the token: {token}"), width, big_endian);
        let clean = encoded("the token: [REDACTED:github-token]", width, big_endian);
        assert_eq!(redacted(&text), clean);
        assert_eq!(streamed(&text, &[text.len() - 1]), clean, "{width} {big_endian}");
    }
}

#[test]
fn a_long_wide_secret_in_small_pieces_takes_linear_work() {
    let begin = concat!("-----BEGIN RSA PRIV", "ATE KEY-----\n");
    let mut redactor = Redactor::new(scanner());
    redactor.push(&encoded(begin, 2, false));
    let mut swept = 0;
    for byte in encoded(&"QUJD".repeat(3000), 2, false) {
        swept += usize::from(!redactor.waits_with(&[byte]));
        redactor.push(&[byte]);
    }
    assert!(swept < 10, "swept {swept} times");
    assert!(redactor.held() > 20_000);
}

#[test]
fn zeros_of_data_are_left_alone() {
    let numbers: Vec<u8> = (0..40_000u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
    assert_eq!(redacted(&numbers), numbers);
    assert_eq!(streamed(&numbers, &[3, 1000, 1001]), numbers);
    assert_eq!(redacted(&[0; 10_000]), [0; 10_000]);
}

fn mixed() -> impl Strategy<Value = Vec<u8>> {
    let wide = (pieces_of(0..3), 0..2usize, any::<bool>())
        .prop_map(|(text, width, big_endian)| encoded(&String::from_utf8_lossy(&text), WIDTHS[width], big_endian));
    let zeros = (0..6usize).prop_map(|count| vec![0; count]);
    proptest::collection::vec(prop_oneof![2 => wide, 1 => pieces_of(0..2), 1 => zeros], 0..4)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_mixed_stream_is_redacted_like_the_whole(
        text in mixed(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let parts = streamed(&text, &cuts);
        let whole = redacted(&text);
        prop_assert_eq!(String::from_utf8_lossy(&parts), String::from_utf8_lossy(&whole));
    }

    #[test]
    fn text_without_zeros_is_redacted_as_in_plain_characters(text in pieces(), which in 0..4usize) {
        let text = String::from_utf8_lossy(&text).replace(|c: char| !c.is_ascii() || c == '\0', "");
        let (width, big_endian) = encodings().nth(which).unwrap();
        let clean = String::from_utf8(redacted(text.as_bytes())).unwrap();
        if text.len() >= 8 {
            let wide = String::from_utf8_lossy(&redacted(&encoded(&text, width, big_endian))).replace('\0', "");
            prop_assert_eq!(wide, clean);
        }
    }
}
