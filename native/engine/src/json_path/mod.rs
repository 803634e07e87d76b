//! Paths of SQL/JSON over JSONB values, in the lax mode of the standard: `$.a[*].b`, `$[last]`, `$[*] ? (@.x == 1)`.
//! A path comes from SQL and a value from strangers: how deep the one nests and how much of the other it looks at is bounded.
//!
//! Lax: a member of an array is that member of each of its elements, an index of what is no array takes it for an array
//! of one, and what does not exist is left out. A comparison of values that can't be compared is unknown, not false.

mod evaluation;
mod parser;
mod scalar;
mod steps;

use crate::jsonb::{Error, Value};
use evaluation::Evaluation;
use parser::Parser;
pub use steps::Path;

impl Path {
    /// Reads a path; the error tells what is wrong with it and where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser::new(text);
        if parser.take_word("strict") {
            return Err(parser.error("mode strict is not offered, only lax"));
        }
        parser.take_word("lax");
        if !parser.take("$") {
            return Err(parser.error("no $ where it should begin"));
        }
        let steps = parser.steps(0)?;
        parser.skip_space();
        if !parser.is_at_end() {
            return Err(parser.error("unexpected text"));
        }
        Ok(Self { steps })
    }

    /// The values that the path leads to, in the order of the document.
    pub fn select<'a>(&self, root: Value<'a>) -> Result<Vec<Value<'a>>, Error> {
        Evaluation::new(root).follow(&self.steps, vec![root])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_text;
    use crate::jsonb::{encode, encode_array};

    fn found(document: &str, path: &str) -> Result<String, Error> {
        let bytes = encode(&json_text::parse(document)?)?;
        let found = encode_array(&Path::parse(path)?.select(Value::parse(&bytes)?)?)?;
        let mut text = String::new();
        json_text::format(&Value::parse(&found)?, &mut text)?;
        Ok(text)
    }

    #[test]
    fn paths_lead_where_the_standard_says() {
        let document = r#"{"a": [{"x": 1}, {"x": 2, "y": [true, null]}], "b b": "text"}"#;
        for (path, expected) in [
            ("$.a.x", "[1,2]"),
            ("lax $.a[*] ? (@.x == 2).y", "[[true,null]]"),
            ("$.a[last].y[0 to last]", "[true,null]"),
            ("$.\"b b\" ? (@ starts with \"te\")", "[\"text\"]"),
            ("$.a[*] ? (!(exists(@.y)))", "[{\"x\":1}]"),
            ("$.a[*].x ? (@ > 0.5 && (@ < 1.5 || @ == 9))", "[1]"),
            ("$.a[0, 0, 7].x", "[1,1]"),
            ("$.*[0].x[0]", "[1]"),
            ("$.nothing", "[]"),
        ] {
            assert_eq!(found(document, path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn neither_nesting_nor_repetition_gets_out_of_hand() {
        let deep = format!("$ ? ({}@ == 1{})", "(".repeat(9999), ")".repeat(9999));
        assert!(Path::parse(&deep).unwrap_err().contains("nested too deep"));
        let many = format!("${}", "[0, 0, 0, 0]".repeat(50));
        assert!(found("[1]", &many).unwrap_err().contains("values to look at"));
        let (some, more) = ("[0, 0, 0, 0]".repeat(7), "[0, 0, 0, 0]".repeat(10));
        let names: Vec<String> = (0..2000).map(|name| format!("\"{name}\":1")).collect();
        let long = "x".repeat(100_000);
        for (document, path) in [
            (format!("{{{}}}", names.join(",")), format!("${more}.\"9\"")),
            (format!("{{\"{long}\":1}}"), format!("${some}[0, 0].y")),
            (format!("[\"{long}\"]"), format!("${some} ? (@ == $[0])")),
        ] {
            assert!(found(&document, &path).unwrap_err().contains("values to look at"));
        }
    }
}
