//! What values are compared by.

use std::cmp::Ordering;

use super::steps::Comparison;
use crate::jsonb::{Number, Tree, Value};

#[derive(Clone, Copy)]
pub enum Scalar<'s> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'s str),
    Container,
}

impl<'s> Scalar<'s> {
    pub fn of_tree(tree: &'s Tree) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Bool(value) => Self::Bool(*value),
            Tree::Number(number) => Self::Number(*number),
            Tree::String(text) => Self::String(text),
            Tree::Array(_) | Tree::Object(_) => Self::Container,
        }
    }

    pub fn of_value(value: Value<'s>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::String(text),
            Value::Array(_) | Value::Object(_) => Self::Container,
        }
    }

    /// Bytes that a comparison may have to look at.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            _ => 0,
        }
    }

    /// None where the two can't be compared; null is equal to null and unlike anything else.
    pub fn compare(&self, comparison: Comparison, other: &Self) -> Option<bool> {
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
