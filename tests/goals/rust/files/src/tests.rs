use super::tally;

#[test]
fn words_are_counted_whatever_their_case() {
    let counts = tally("The cat\n and  the dog");
    assert_eq!(counts["the"], 2);
    assert_eq!(counts.len(), 4);
}
