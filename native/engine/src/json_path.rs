//! Paths of SQL/JSON over JSONB values, in the lax mode of the standard: `$.a[*].b`, `$[last]`, `$[*] ? (@.x == 1)`.
//! A path comes from SQL and a value from strangers: neither may cost more than `MAX_NESTING` and `MAX_VISITS` allow.
//!
//! Lax: a member of an array is that member of each of its elements, an index of what is no array takes it for an array
//! of one, and what does not exist is left out. A comparison of values that can't be compared is unknown, not false.

use std::cmp::Ordering;

use crate::json_text;
use crate::jsonb::{Error, Number, Tree, Value};

/// Parentheses and filters within each other.
const MAX_NESTING: usize = 32;

/// Values that one path may look at in one document.
const MAX_VISITS: usize = 1 << 21;

/// A path that was parsed; it can be applied to any number of values.
#[derive(Debug, PartialEq)]
pub struct Path {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Member(String),
    Members,
    Elements,
    Subscripts(Vec<(Index, Index)>),
    Filter(Predicate),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Index {
    FromStart(u64),
    FromLast(u64),
}

#[derive(Debug, PartialEq)]
enum Predicate {
    Any(Vec<Predicate>),
    All(Vec<Predicate>),
    Not(Box<Predicate>),
    IsUnknown(Box<Predicate>),
    Exists(Operand),
    StartsWith(Operand, String),
    Compare(Operand, Comparison, Operand),
}

#[derive(Debug, PartialEq)]
enum Operand {
    Literal(Tree),
    /// `@…`: from the value that the filter looks at.
    OfCurrent(Path),
    /// `$…`: from the whole document.
    OfRoot(Path),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Path {
    /// Reads a path; the error tells what is wrong with it and where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { text, at: 0 };
        if parser.take_word("strict") {
            return Err(parser.error("mode strict is not offered, only lax"));
        }
        parser.take_word("lax");
        if !parser.take("$") {
            return Err(parser.error("no $ where it should begin"));
        }
        let steps = parser.steps(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.error("unexpected text"));
        }
        Ok(Self { steps })
    }

    /// The values that the path leads to, in the order of the document.
    pub fn select<'a>(&self, root: Value<'a>) -> Result<Vec<Value<'a>>, Error> {
        Evaluation { root, visits: 0 }.follow(&self.steps, vec![root])
    }
}

// ---- parsing

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, what: &str) -> Error {
        format!("json path: {what} at byte {}", self.at)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// A keyword that no further letter follows.
    fn take_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let found = self.name_length() == word.len() && self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), Error> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.error(&format!("no {token} where one is expected")))
    }

    fn name_length(&self) -> usize {
        let is_part = |character: char| character.is_alphanumeric() || character == '_';
        self.rest()
            .find(|character| !is_part(character))
            .unwrap_or(self.rest().len())
    }

    fn steps(&mut self, nesting: usize) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        loop {
            if self.take(".") {
                steps.push(self.member()?);
            } else if self.take("[") {
                steps.push(self.brackets()?);
            } else if self.take("?") {
                self.expect("(")?;
                steps.push(Step::Filter(self.any(nesting + 1)?));
                self.expect(")")?;
            } else {
                return Ok(steps);
            }
        }
    }

    fn member(&mut self) -> Result<Step, Error> {
        if self.take("*") {
            return Ok(Step::Members);
        }
        self.skip_space();
        if self.rest().starts_with('"') {
            return Ok(Step::Member(self.string()?));
        }
        let length = self.name_length();
        if length == 0 || self.rest().starts_with(|first: char| first.is_numeric()) {
            return Err(self.error("no name of a member (quote one with other characters)"));
        }
        let name = self.rest()[..length].to_string();
        self.at += length;
        if self.take("(") {
            return Err(self.error("methods of items are not offered"));
        }
        Ok(Step::Member(name))
    }

    fn brackets(&mut self) -> Result<Step, Error> {
        if self.take("*") {
            self.expect("]")?;
            return Ok(Step::Elements);
        }
        let mut subscripts = Vec::new();
        loop {
            let from = self.index()?;
            let to = if self.take_word("to") { self.index()? } else { from };
            subscripts.push((from, to));
            if self.take("]") {
                return Ok(Step::Subscripts(subscripts));
            }
            self.expect(",")?;
        }
    }

    fn index(&mut self) -> Result<Index, Error> {
        if self.take_word("last") {
            return Ok(Index::FromLast(if self.take("-") { self.whole_number()? } else { 0 }));
        }
        self.whole_number().map(Index::FromStart)
    }

    fn whole_number(&mut self) -> Result<u64, Error> {
        self.skip_space();
        let length = self.name_length();
        let digits = &self.rest()[..length];
        let number = digits
            .bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| digits.parse());
        let Some(Ok(number)) = number else {
            return Err(self.error("no index (they count from 0, `last - n` from the end)"));
        };
        self.at += length;
        Ok(number)
    }

    /// A string of JSON, quotes included.
    fn string(&mut self) -> Result<String, Error> {
        match json_text::parse_prefix(self.rest()) {
            Ok((Tree::String(text), length)) => {
                self.at += length;
                Ok(text)
            }
            _ => Err(self.error("no string")),
        }
    }

    fn any(&mut self, nesting: usize) -> Result<Predicate, Error> {
        if nesting > MAX_NESTING {
            return Err(self.error("nested too deep"));
        }
        let mut parts = vec![self.all(nesting)?];
        while self.take("||") {
            parts.push(self.all(nesting)?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Predicate::Any(parts)
        })
    }

    fn all(&mut self, nesting: usize) -> Result<Predicate, Error> {
        let mut parts = vec![self.condition(nesting)?];
        while self.take("&&") {
            parts.push(self.condition(nesting)?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Predicate::All(parts)
        })
    }

    fn condition(&mut self, nesting: usize) -> Result<Predicate, Error> {
        self.skip_space();
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            if self.take_word("exists") {
                return Ok(Predicate::Not(Box::new(self.exists(nesting)?)));
            }
            self.expect("(")?;
            let negated = self.any(nesting + 1)?;
            self.expect(")")?;
            return Ok(Predicate::Not(Box::new(negated)));
        }
        if self.take_word("exists") {
            return self.exists(nesting);
        }
        if self.take("(") {
            let inner = self.any(nesting + 1)?;
            self.expect(")")?;
            if !self.take_word("is") {
                return Ok(inner);
            }
            if !self.take_word("unknown") {
                return Err(self.error("no `unknown` after `is`"));
            }
            return Ok(Predicate::IsUnknown(Box::new(inner)));
        }
        self.comparison(nesting)
    }

    fn exists(&mut self, nesting: usize) -> Result<Predicate, Error> {
        self.expect("(")?;
        let operand = self.operand(nesting)?;
        self.expect(")")?;
        Ok(Predicate::Exists(operand))
    }

    fn comparison(&mut self, nesting: usize) -> Result<Predicate, Error> {
        let left = self.operand(nesting)?;
        if self.take_word("starts") {
            if !self.take_word("with") {
                return Err(self.error("no `with` after `starts`"));
            }
            self.skip_space();
            return Ok(Predicate::StartsWith(left, self.string()?));
        }
        let operators = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let Some((_, comparison)) = operators.into_iter().find(|(token, _)| self.take(token)) else {
            return Err(self.error("no comparison (==, !=, <, <=, >, >=, starts with)"));
        };
        Ok(Predicate::Compare(left, comparison, self.operand(nesting)?))
    }

    fn operand(&mut self, nesting: usize) -> Result<Operand, Error> {
        if self.take("@") {
            let steps = self.steps(nesting)?;
            return Ok(Operand::OfCurrent(Path { steps }));
        }
        if self.take("$") {
            let steps = self.steps(nesting)?;
            return Ok(Operand::OfRoot(Path { steps }));
        }
        match json_text::parse_prefix(self.rest()) {
            Ok((Tree::Array(_) | Tree::Object(_), _)) | Err(_) => Err(self.error("neither a path nor a scalar")),
            Ok((scalar, length)) => {
                self.at += length;
                Ok(Operand::Literal(scalar))
            }
        }
    }
}

// ---- evaluation

struct Evaluation<'a> {
    root: Value<'a>,
    visits: usize,
}

impl<'a> Evaluation<'a> {
    fn visit(&mut self) -> Result<(), Error> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Err(format!("json path: more than {MAX_VISITS} values to look at"));
        }
        Ok(())
    }

    fn follow(&mut self, steps: &[Step], mut current: Vec<Value<'a>>) -> Result<Vec<Value<'a>>, Error> {
        for step in steps {
            let mut next = Vec::new();
            for value in current {
                self.visit()?;
                self.step(step, value, &mut next)?;
            }
            current = next;
        }
        Ok(current)
    }

    fn step(&mut self, step: &Step, value: Value<'a>, out: &mut Vec<Value<'a>>) -> Result<(), Error> {
        match step {
            Step::Member(name) => self.each_unwrapped(value, |_, item| {
                if let Value::Object(object) = item {
                    out.extend(object.get_exact(name)?);
                }
                Ok(())
            }),
            Step::Members => self.each_unwrapped(value, |evaluation, item| {
                if let Value::Object(object) = item {
                    for member in object.iter()? {
                        evaluation.visit()?;
                        out.push(member?.1);
                    }
                }
                Ok(())
            }),
            Step::Elements => self.each_unwrapped(value, |_, item| {
                out.push(item);
                Ok(())
            }),
            Step::Subscripts(subscripts) => {
                for (from, to) in subscripts {
                    self.subscript(value, *from, *to, out)?;
                }
                Ok(())
            }
            Step::Filter(predicate) => self.each_unwrapped(value, |evaluation, item| {
                if evaluation.holds(predicate, item)? == Some(true) {
                    out.push(item);
                }
                Ok(())
            }),
        }
    }

    /// The elements of an array, and anything else as it is.
    fn each_unwrapped(
        &mut self,
        value: Value<'a>,
        mut take: impl FnMut(&mut Self, Value<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Value::Array(array) = value else {
            return take(self, value);
        };
        for item in array.iter() {
            self.visit()?;
            take(self, item?)?;
        }
        Ok(())
    }

    fn subscript(&mut self, value: Value<'a>, from: Index, to: Index, out: &mut Vec<Value<'a>>) -> Result<(), Error> {
        let length = if let Value::Array(array) = value {
            array.len()
        } else {
            1
        };
        let place = |index: Index| match index {
            Index::FromStart(place) => Some(place),
            Index::FromLast(back) => (length as u64).checked_sub(1)?.checked_sub(back),
        };
        let Some(to) = place(to) else { return Ok(()) };
        // a range from before the first element starts with it
        let from = place(from).unwrap_or(0);
        if from > to || from >= length as u64 {
            return Ok(());
        }
        let Value::Array(array) = value else {
            out.push(value);
            return Ok(());
        };
        let last = to.min(length as u64 - 1) as usize;
        for (place, item) in array.iter().take(last + 1).enumerate() {
            self.visit()?;
            if place >= from as usize {
                out.push(item?);
            }
        }
        Ok(())
    }

    /// None is unknown.
    fn holds(&mut self, predicate: &Predicate, current: Value<'a>) -> Result<Option<bool>, Error> {
        match predicate {
            Predicate::Any(parts) => self.combined(parts, current, true),
            Predicate::All(parts) => self.combined(parts, current, false),
            Predicate::Not(negated) => Ok(self.holds(negated, current)?.map(|truth| !truth)),
            Predicate::IsUnknown(inner) => Ok(Some(self.holds(inner, current)?.is_none())),
            Predicate::Exists(operand) => Ok(Some(match operand {
                Operand::Literal(_) => true,
                Operand::OfCurrent(path) => !self.follow(&path.steps, vec![current])?.is_empty(),
                Operand::OfRoot(path) => !self.follow(&path.steps, vec![self.root])?.is_empty(),
            })),
            Predicate::StartsWith(operand, start) => {
                let mut truth = Some(false);
                for value in self.scalars(operand, current)? {
                    match value {
                        Scalar::String(text) if text.starts_with(start.as_str()) => return Ok(Some(true)),
                        Scalar::String(_) => {}
                        _ => truth = None,
                    }
                }
                Ok(truth)
            }
            Predicate::Compare(left, comparison, right) => {
                let (left, right) = (self.scalars(left, current)?, self.scalars(right, current)?);
                let mut truth = Some(false);
                for one in &left {
                    for other in &right {
                        self.visit()?;
                        match one.compare(*comparison, other) {
                            Some(true) => return Ok(Some(true)),
                            Some(false) => {}
                            None => truth = None,
                        }
                    }
                }
                Ok(truth)
            }
        }
    }

    /// Of a disjunction (`decisive` is true) or of a conjunction.
    fn combined(&mut self, parts: &[Predicate], current: Value<'a>, decisive: bool) -> Result<Option<bool>, Error> {
        let mut truth = Some(!decisive);
        for part in parts {
            match self.holds(part, current)? {
                Some(found) if found == decisive => return Ok(Some(decisive)),
                Some(_) => {}
                None => truth = None,
            }
        }
        Ok(truth)
    }

    /// What an operand is compared by: arrays are their elements.
    fn scalars<'s>(&mut self, operand: &'s Operand, current: Value<'a>) -> Result<Vec<Scalar<'s>>, Error>
    where
        'a: 's,
    {
        let (path, start) = match operand {
            Operand::Literal(tree) => return Ok(vec![Scalar::of_tree(tree)]),
            Operand::OfCurrent(path) => (path, current),
            Operand::OfRoot(path) => (path, self.root),
        };
        let mut scalars = Vec::new();
        for value in self.follow(&path.steps, vec![start])? {
            self.each_unwrapped(value, |_, item| {
                scalars.push(Scalar::of_value(item));
                Ok(())
            })?;
        }
        Ok(scalars)
    }
}

#[derive(Clone, Copy)]
enum Scalar<'s> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'s str),
    Container,
}

impl<'s> Scalar<'s> {
    fn of_tree(tree: &'s Tree) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Bool(value) => Self::Bool(*value),
            Tree::Number(number) => Self::Number(*number),
            Tree::String(text) => Self::String(text),
            Tree::Array(_) | Tree::Object(_) => Self::Container,
        }
    }

    fn of_value(value: Value<'s>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::String(text),
            Value::Array(_) | Value::Object(_) => Self::Container,
        }
    }

    /// None where the two can't be compared; null is equal to null and unlike anything else.
    fn compare(&self, comparison: Comparison, other: &Self) -> Option<bool> {
        let order = match (self, other) {
            (Self::Container, _) | (_, Self::Container) => return None,
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) | (_, Self::Null) => return Some(comparison == Comparison::NotEqual),
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::String(one), Self::String(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => compare_numbers(*one, *other)?,
            _ => return None,
        };
        Some(match comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        })
    }
}

/// Exact, also between integers and floats; None for NaN.
fn compare_numbers(one: Number, other: Number) -> Option<Ordering> {
    match (one, other) {
        (Number::Float(one), Number::Float(other)) => one.partial_cmp(&other),
        (Number::Float(float), integer) => compare_with_float(whole(integer), float).map(Ordering::reverse),
        (integer, Number::Float(float)) => compare_with_float(whole(integer), float),
        (one, other) => Some(whole(one).cmp(&whole(other))),
    }
}

fn whole(number: Number) -> i128 {
    match number {
        Number::Signed(value) => i128::from(value),
        Number::Unsigned(value) => i128::from(value),
        Number::Float(value) => value as i128,
    }
}

fn compare_with_float(integer: i128, float: f64) -> Option<Ordering> {
    // beyond 64 bits the cast saturates far from any integer here, infinities included
    let order = integer.cmp(&(float.trunc() as i128));
    let fraction = || 0.0_f64.partial_cmp(&float.fract());
    if float.is_nan() {
        None
    } else if order.is_eq() {
        fraction()
    } else {
        Some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    }

    #[test]
    fn integers_and_floats_compare_exactly() {
        let large = Number::Unsigned(u64::MAX);
        assert_eq!(
            compare_numbers(large, Number::Float(1.8446744073709552e19)),
            Some(Ordering::Less)
        );
        assert_eq!(
            compare_numbers(Number::Float(-0.5), Number::Signed(0)),
            Some(Ordering::Less)
        );
        assert_eq!(
            compare_numbers(Number::Signed(3), Number::Float(3.0)),
            Some(Ordering::Equal)
        );
        assert_eq!(compare_numbers(Number::Signed(3), Number::Float(f64::NAN)), None);
        assert_eq!(
            compare_numbers(Number::Float(f64::INFINITY), large),
            Some(Ordering::Greater)
        );
    }
}
