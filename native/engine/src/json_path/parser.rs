//! From the text of a path to its steps.

use super::steps::{Comparison, Index, Operand, Path, Predicate, Step};
use crate::json_text;
use crate::jsonb::{Error, Tree};

/// Parentheses and filters within each other.
const MAX_NESTING: usize = 32;

/// Reads what a path is written as.
pub struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub fn error(&self, what: &str) -> Error {
        format!("json path: {what} at byte {}", self.at)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    pub fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    pub fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// A keyword that no further letter follows.
    pub fn take_word(&mut self, word: &str) -> bool {
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

    pub fn steps(&mut self, nesting: usize) -> Result<Vec<Step>, Error> {
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
