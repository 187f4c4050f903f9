//! What a table promises: no word is ever broken, and it fits the width that it is given or says less.

use super::*;

const WORDS: [&str; 4] =
    ["0198f2a1-1111-7aaa-8bbb-cccccccccccc", "caritas → citta-metropolitana", "DEAD_LETTERED", "2026-01-02 03:04:05Z"];

fn sheet() -> Sheet {
    let mut sheet = Sheet::new(Output::to_a_pipe(), &["message", "way", "state", "accepted"]).steps(&[
        Step::Short(0, crate::output::short_id),
        Step::Short(3, crate::output::short_time),
        Step::Flow(1),
    ]);
    sheet.add_row(WORDS.map(|word| Word::new(word, Tone::Plain)));
    sheet
}

#[test]
fn a_pipe_gets_one_whole_line_for_each_row() {
    let text = sheet().flat();
    assert_eq!(text.lines().count(), 3, "{text}");
    for word in WORDS {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn no_word_is_broken_at_any_width() {
    for width in 20..140 {
        let text = sheet().fitted(width);
        for word in ["cccccccc", "caritas", "citta-metropolitana", "DEAD_LETTERED", "03:04"] {
            assert!(text.contains(word), "{word} at {width}:\n{text}");
        }
        if width >= 60 {
            assert!(text.lines().all(|line| chars(line) <= width), "{width}:\n{text}");
        }
    }
    assert!(sheet().fitted(140).contains(WORDS[0]), "an id is whole where it fits");
}
