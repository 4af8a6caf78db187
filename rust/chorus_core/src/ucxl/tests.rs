#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    addresses: Vec<Address>,
    errors: Vec<Wrong>,
    versions: Vec<Version>,
    matches: Vec<Match>,
}

#[derive(Deserialize)]
struct Address {
    text: String,
    agent: String,
    role: String,
    project: String,
    task: String,
    temporal: String,
    path: String,
    is_pattern: bool,
}

#[derive(Deserialize)]
struct Wrong {
    text: String,
    field: String,
    message: String,
}

#[derive(Deserialize)]
struct Version {
    temporal: String,
    latest: u32,
    version: Option<u32>,
}

#[derive(Deserialize)]
struct Match {
    pattern: String,
    address: String,
    matches: bool,
}

/// What the Python tests read too.
fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../tests/vectors/ucxl.json")).unwrap()
}

fn at(temporal: &str) -> Ucxl {
    Ucxl::new("a", "r", "p", "t", "x", temporal).unwrap()
}

#[test]
fn the_vectors_addresses_are_read_and_made() {
    for v in vectors().addresses {
        let read = Ucxl::parse(&v.text).unwrap();
        assert_eq!([read.agent(), read.role(), read.project()], [&v.agent, &v.role, &v.project], "{}", v.text);
        assert_eq!([read.task(), read.path()], [&v.task, &v.path], "{}", v.text);
        assert_eq!(read.temporal().to_string(), v.temporal);
        assert_eq!(read.is_pattern(), v.is_pattern, "{}", v.text);
        assert_eq!(read, Ucxl::new(&v.agent, &v.role, &v.project, &v.task, &v.path, &v.temporal).unwrap());
        assert_eq!(read.to_string(), v.text);
    }
}

#[test]
fn the_vectors_errors_are_to_the_letter() {
    for v in vectors().errors {
        let error = Ucxl::parse(&v.text).unwrap_err();
        assert_eq!((error.field.name(), error.message.as_str()), (v.field.as_str(), v.message.as_str()), "{}", v.text);
        let line = format!("UCXL address validation error in {}: {} (address: {})", v.field, v.message, v.text);
        assert_eq!(error.to_string(), line);
    }
}

#[test]
fn the_vectors_temporals_mean_their_versions() {
    for v in vectors().versions {
        let meant = at(&v.temporal).resolve(v.latest);
        assert_eq!(meant.as_ref().ok(), v.version.as_ref(), "{} of {}", v.temporal, v.latest);
        assert!(meant.is_ok_and(|_| true) || v.version.is_none());
    }
}

#[test]
fn the_vectors_patterns_match() {
    for v in vectors().matches {
        let (pattern, address) = (Ucxl::parse(&v.pattern).unwrap(), Ucxl::parse(&v.address).unwrap());
        assert_eq!(pattern.matches(&address), v.matches, "{} of {}", v.pattern, v.address);
    }
}

#[test]
fn parts_stay_within_their_limits() {
    let long = "x".repeat(129);
    let parts =
        |field| [Field::Agent, Field::Role, Field::Project, Field::Task].map(|f| if f == field { &long } else { "x" });
    for field in [Field::Agent, Field::Role, Field::Project, Field::Task] {
        let [agent, role, project, task] = parts(field);
        assert_eq!(Ucxl::new(agent, role, project, task, "", "*^").unwrap_err().field, field);
        let [agent, role, project, task] = parts(field).map(|part| &part[..part.len().min(128)]);
        Ucxl::new(agent, role, project, task, "", "*^").unwrap();
    }
    assert_eq!(Ucxl::new("a", "r", "p", "t", &"x".repeat(1025), "*^").unwrap_err().field, Field::Path);
    let most = Ucxl::new(&long[..128], &long[..128], &long[..128], &long[..128], &"x".repeat(1024), "^^4294967295");
    assert_eq!(Ucxl::parse(most.as_ref().unwrap().as_str()), most);
}

#[test]
fn no_part_can_pass_for_two() {
    // Joined, this would be the address `ucxl://a:r@p:t/*^/x/y`.
    assert_eq!(Ucxl::new("a", "r", "p", "t", "y", "*^/x").unwrap_err().field, Field::Temporal);
    assert_eq!(Ucxl::new("a:r@p:t/*^/x", "r", "p", "t", "", "*^").unwrap_err().field, Field::Agent);
}

#[test]
fn an_error_shows_a_bounded_address_that_prints() {
    let error = Ucxl::parse(&format!("ucxl://a\n\u{1b}[2J\u{202e}é{}", "x".repeat(1 << 20))).unwrap_err();
    assert!(error.raw.starts_with("ucxl://a\\n\\u{1b}[2J\\u{202e}éxxx"), "{}", error.raw);
    assert!(error.raw.ends_with("x…") && error.raw.len() < 520);
    assert!(error.to_string().len() < 1000);
    let error = Ucxl::parse("ucxl://a\u{7}:r@p:t/*^/").unwrap_err();
    assert_eq!(error.message, "may not contain `\\u{7}`: only A-Z a-z 0-9 _ -");
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![Just("any".to_owned()), "[ab]", "[A-Za-z0-9_-]{1,128}"]
}

fn temporal() -> impl Strategy<Value = String> {
    let number = prop_oneof![0u32..5, any::<u32>()];
    let forms = (proptest::sample::select(vec!["*~", "~~", "^^"]), number).prop_map(|(form, n)| format!("{form}{n}"));
    prop_oneof![Just("*^".to_owned()), Just("*~".to_owned()), forms]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof!["([ab]/){0,3}[ab]?", "([A-Za-z0-9_-]{1,9}/){0,9}[A-Za-z0-9_.-]{0,9}[a-z]"]
}

prop_compose! {
    fn address()(parts in [component(), component(), component(), component()], path in path(), temporal in temporal()) -> Ucxl {
        let [agent, role, project, task] = parts;
        Ucxl::new(&agent, &role, &project, &task, &path, &temporal).unwrap()
    }
}

proptest! {
    #[test]
    fn an_address_is_its_text(address in address()) {
        let again = Ucxl::parse(address.as_str()).unwrap();
        prop_assert_eq!(&again, &address);
        prop_assert_eq!(address.at(&address.temporal().to_string()).unwrap(), address);
    }

    #[test]
    fn the_order_is_that_of_the_text(one in address(), other in address()) {
        prop_assert_eq!(one.cmp(&other), one.as_str().cmp(other.as_str()));
    }

    #[test]
    fn any_text_is_refused_or_comes_back_the_same(text in any::<String>()) {
        if let Ok(address) = Ucxl::parse(&text) {
            prop_assert_eq!(address.as_str(), text);
        }
    }

    /// As before, but of the characters that matter.
    #[test]
    fn near_misses_too(text in "ucxl://[a-c:@/*^~0-9.\u{e9}]{0,30}", start in "(ucxl://a:r@p:t)?") {
        for text in [text.clone(), format!("{start}{}", &text[7..])] {
            match Ucxl::parse(&text) {
                Ok(address) => prop_assert_eq!(address.as_str(), text),
                Err(error) => prop_assert_eq!(error.raw, text),
            }
        }
    }

    #[test]
    fn what_matches_what_is_lawful(one in address(), two in address(), three in address()) {
        prop_assert!(one.matches(&one) && one.matches(&one.at("*~").unwrap()));
        if one.matches(&two) && two.matches(&three) {
            prop_assert!(one.matches(&three));
        }
        if one.matches(&two) && two.matches(&one) {
            prop_assert_eq!(one.at("*^").unwrap(), two.at("*^").unwrap());
        }
        let everything = Ucxl::new("any", "any", "any", "any", "", "*~").unwrap();
        prop_assert!(everything.matches(&one));
    }

    #[test]
    fn a_version_is_within_the_ends(temporal in temporal(), latest in prop_oneof![0u32..6, any::<u32>()]) {
        let address = at(&temporal);
        let expected = match address.temporal() {
            Temporal::Any => 0,
            Temporal::Latest => i64::from(latest),
            Temporal::Version(n) => i64::from(n),
            Temporal::Back(n) => i64::from(latest) - i64::from(n),
            Temporal::Forward(n) => 1 + i64::from(n),
        };
        match address.resolve(latest) {
            Ok(version) => prop_assert_eq!(i64::from(version), expected),
            Err(error) => {
                prop_assert_eq!(error.field, Field::Temporal);
                prop_assert!(!(1..=i64::from(latest)).contains(&expected));
            }
        }
    }
}

/// A figure, not an assertion: `cargo test --release ucxl -- --ignored --nocapture`.
#[test]
#[ignore = "a benchmark"]
fn time_of_a_parse() {
    const COUNT: u32 = 1_000_000;
    let text = "ucxl://agent-7:developer@chorus:01M84AFG91PKPGRF72X67GDWMC/*^/1/decision.json";
    let start = std::time::Instant::now();
    for _ in 0..COUNT {
        std::hint::black_box(Ucxl::parse(std::hint::black_box(text)).unwrap());
    }
    println!("UCXL parse: {:?}", start.elapsed() / COUNT);
}
