//! What a path consists of.

use crate::jsonb::Tree;

/// A path that was parsed; it can be applied to any number of values.
#[derive(Debug, PartialEq)]
pub struct Path {
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    Member(String),
    Members,
    Elements,
    Subscripts(Vec<(Index, Index)>),
    Filter(Predicate),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Index {
    FromStart(u64),
    FromLast(u64),
}

#[derive(Debug, PartialEq)]
pub enum Predicate {
    Any(Vec<Predicate>),
    All(Vec<Predicate>),
    Not(Box<Predicate>),
    IsUnknown(Box<Predicate>),
    Exists(Operand),
    StartsWith(Operand, String),
    Compare(Operand, Comparison, Operand),
}

#[derive(Debug, PartialEq)]
pub enum Operand {
    Literal(Tree),
    /// `@…`: from the value that the filter looks at.
    OfCurrent(Path),
    /// `$…`: from the whole document.
    OfRoot(Path),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
