//! The original's answers, and whatever text may come in.

use std::collections::BTreeMap;
use std::hint::black_box;

use proptest::prelude::*;

use super::*;
use crate::limits;

type Set = BTreeMap<String, String>;

impl Properties for Set {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// What the original said of each expression for each set of properties: `T`, `F`, `?` for unknown, `!` for an exception; or that it
/// refuses the expression, or takes it and ignores what stands behind it.
const ANSWERS: &str = include_str!("../../../../fixtures/sql/answers-5.3.3.txt");

fn judge(expression: &Expression, set: &Set) -> char {
    match expression.evaluate(set) {
        Ok(Some(true)) => 'T',
        Ok(Some(false)) => 'F',
        Ok(None) => '?',
        Err(_) => '!',
    }
}

#[test]
fn every_expression_means_what_it_means_to_the_original() {
    let (mut sets, mut expressions, mut wrong) = (Vec::<Set>::new(), 0, Vec::new());
    for line in ANSWERS.lines() {
        let Some((text, answer)) = line.split_once('\t') else {
            sets.push(serde_json::from_str(line).expect("a set of properties"));
            continue;
        };
        expressions += 1;
        let text: String = serde_json::from_str(text).expect("an expression");
        let ours = match parse(&text) {
            Ok(expression) => sets.iter().map(|set| judge(&expression, set)).collect(),
            // What stands behind a whole expression is refused here: the original never looks at it.
            Err(_) if answer == "trailing" => answer.to_owned(),
            Err(_) => "refused".to_owned(),
        };
        if ours != answer {
            wrong.push(format!("{text}\n  the original: {answer}\n  ours:         {ours} {:?}", parse(&text).err()));
        }
    }
    assert!(expressions > 2000 && sets.len() == 10, "{expressions} expressions, {} sets", sets.len());
    assert!(wrong.is_empty(), "{} of {expressions}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn k37_what_is_wrong_is_said_with_its_place() {
    for (text, at, what) in [
        ("n > 9 AN color = 'red'", 6, "nothing may follow"),
        ("color LIKE 'r%'", 6, "nothing may follow"),
        ("n > ", 4, "a value is wanted"),
        ("n > 'x'", 2, "only numbers"),
        ("n = \"x\"", 4, "no word, number, text or sign"),
        ("n = 'x", 4, "has no end"),
        ("(n = 5", 6, ") is wanted"),
        ("n IN ('a' 'b')", 10, ") is wanted"),
        ("n IS 5", 5, "NULL"),
        ("n BETWEEN 6 AND 1", 2, "between"),
        ("n = NULL", 2, "IS NULL"),
        ("5", 0, "a comparison is wanted"),
        ("n = 9223372036854775808", 4, "64 bits"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.at == at && error.what.contains(what), "{text}: {error}");
    }
}

#[test]
fn neither_length_nor_depth_nor_parts_grow_beyond_their_limits() {
    let nested = |depth: usize| format!("{}a = 5{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(limits::SQL_DEPTH_MAX - 3)).is_ok());
    for text in [
        nested(100_000.min(limits::SQL_BYTES_MAX / 4)),
        "NOT ".repeat(10_000),
        format!("{}a = 5", "- ".repeat(10_000)),
        format!("{}a = 5", "+ ".repeat(10_000)),
        format!("a{}", " = a".repeat(limits::SQL_DEPTH_MAX + 1)),
        format!("a{}", " IS NULL".repeat(limits::SQL_DEPTH_MAX + 1)),
        format!("a = 5{}", " AND a = 5".repeat(limits::SQL_NODES_MAX)),
        format!("a = '{}'", "x".repeat(limits::SQL_BYTES_MAX)),
    ] {
        let shown = &text[..20];
        assert!(parse(&text).is_err(), "{shown}…");
    }
    // A long list costs one look.
    let list = vec!["'x'"; 10_000].join(",");
    assert!(parse(&format!("a IN ({list})")).is_ok());
    assert!(parse(&format!("a = 5{}", " OR a = 6".repeat(200))).is_ok());
}

#[test]
fn two_expressions_are_the_same_when_they_are_read_alike() {
    let read = |text| parse(text).expect("an expression");
    assert_eq!(read("n > 9 and color='red'"), read("n  >9 AND (color = 'red') -- so\n"));
    assert_ne!(read("n > 9"), read("n >= 9"));
}

fn tokens() -> impl Strategy<Value = String> {
    let words = [
        "a",
        "b",
        "5",
        "0",
        "5.5",
        "3000000000",
        "'x'",
        "''",
        "'5'",
        "TRUE",
        "false",
        "NULL",
        "NOT",
        "AND",
        "OR",
        "IS",
        "IN",
        "BETWEEN",
        "CONTAINS",
        "STARTSWITH",
        "ENDSWITH",
        "(",
        ")",
        ",",
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "+",
        "-",
        "--",
        "/*",
        "*/",
        "\n",
        "é",
        "'",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..40).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_an_expression_or_an_error(text in prop_oneof![tokens(), any::<String>(), "[a-z'0-9().<>=+-]{0,60}"]) {
        match parse(&text) {
            Ok(expression) => {
                let set = Set::from([("a".to_owned(), "5".to_owned()), ("b".to_owned(), "é".to_owned())]);
                black_box(judge(&expression, &set));
                prop_assert_eq!(expression.text(), &text);
            }
            Err(error) => prop_assert!(error.at <= text.len(), "{}", error),
        }
    }

    #[test]
    fn any_property_is_compared_or_refused(value in any::<String>(), number in any::<f64>()) {
        for value in [value, number.to_string(), format!("{number:e}"), format!(" {number}d")] {
            let set = Set::from([("a".to_owned(), value)]);
            for text in ["a = 5", "a > 5.5", "a < 3000000000", "a = 'x'", "a IN ('x')", "a = TRUE", "5 <> a", "a > a"] {
                black_box(judge(&parse(text).expect("an expression"), &set));
            }
        }
    }
}
