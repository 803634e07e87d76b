//! What a path leads to in a document.

use super::scalar::Scalar;
use super::steps::{Index, Operand, Predicate, Step};
use crate::jsonb::{Error, Value};

/// Values that one path may look at in one document.
const MAX_VISITS: usize = 1 << 21;
/// Names that are passed over, and bytes of texts that are looked through, count for as much as a value.
const NAMES_PER_VISIT: usize = 32;
const BYTES_PER_VISIT: usize = 1 << 10;

/// Of paths in one document.
pub struct Evaluation<'a> {
    root: Value<'a>,
    visits: usize,
}

impl<'a> Evaluation<'a> {
    pub fn new(root: Value<'a>) -> Self {
        Self { root, visits: 0 }
    }

    fn visit(&mut self) -> Result<(), Error> {
        self.visit_many(1)
    }

    /// A text that was read; other values are read in no time.
    fn visit_text(&mut self, value: Value<'_>) -> Result<(), Error> {
        match value {
            Value::String(text) => self.visit_many(text.len() / BYTES_PER_VISIT),
            _ => Ok(()),
        }
    }

    fn visit_many(&mut self, visits: usize) -> Result<(), Error> {
        self.visits += visits;
        if self.visits > MAX_VISITS {
            return Err(format!("json path: more than {MAX_VISITS} values to look at"));
        }
        Ok(())
    }

    /// The values that the steps lead to from the current ones.
    pub fn follow(&mut self, steps: &[Step], mut current: Vec<Value<'a>>) -> Result<Vec<Value<'a>>, Error> {
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
            Step::Member(name) => self.each_unwrapped(value, |evaluation, item| {
                if let Value::Object(object) = item {
                    evaluation.visit_many(object.len() / NAMES_PER_VISIT + object.names_bytes()? / BYTES_PER_VISIT)?;
                    if let Some(member) = object.get_exact(name)? {
                        evaluation.visit_text(member)?;
                        out.push(member);
                    }
                }
                Ok(())
            }),
            Step::Members => self.each_unwrapped(value, |evaluation, item| {
                if let Value::Object(object) = item {
                    for member in object.iter()? {
                        let (_, member) = member?;
                        evaluation.visit()?;
                        evaluation.visit_text(member)?;
                        out.push(member);
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
            let item = item?;
            self.visit()?;
            self.visit_text(item)?;
            take(self, item)?;
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
            let item = item?;
            self.visit()?;
            self.visit_text(item)?;
            if place >= from as usize {
                out.push(item);
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
                        self.visit_many(1 + one.text_bytes().min(other.text_bytes()) / BYTES_PER_VISIT)?;
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
