//! SQL filters: which messages of a topic a consumer wants, by their properties.
//!
//! 1. What is accepted, and what it means, is what the original accepts and means: its operators, its conversions, its three truths. One
//!    thing is refused here and ignored there: text behind a whole expression.
//! 2. An expression that cannot be read is refused when it is subscribed, with what is wrong and where.
//! 3. Any text may come in. Nothing here panics on it, and neither its length nor its depth costs more than `limits` say.
//! 4. A message whose properties cannot be compared as the expression wants is not wanted, as with the original; the caller hears of it.
//!
//! ```text
//!  text --> lexer --> parser --> Expression --evaluate(properties)--> true, false, unknown, or what cannot be compared
//! ```
//! | binds | operators |
//! |---|---|
//! | tightest | `( )`, `+`, `-`, `NOT` |
//! | | `>` `>=` `<` `<=`, `[NOT] BETWEEN … AND …`, `[NOT] IN ('…', …)`, `[NOT] CONTAINS`, `STARTSWITH`, `ENDSWITH` |
//! | | `=` `<>`, `IS [NOT] NULL` |
//! | | `AND` |
//! | loosest | `OR` |
//!
//! Literals are `'text'` (a quote is doubled), whole and decimal numbers, `TRUE`, `FALSE`, `NULL`; whatever else begins with a letter,
//! `_` or `$` names a property. Properties are text: they become numbers where they are compared with one.
//!
//! Source: answers of the original, 5.3.3, in `fixtures/sql/`.

mod expression;
mod lexer;
mod parser;
mod value;

pub use expression::Expression;
pub use parser::{NotSql, parse};
pub use value::{Incomparable, Properties};

#[cfg(test)]
mod tests;
