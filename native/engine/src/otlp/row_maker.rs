//! What the makers of rows have in common on their way through a block: a record that is no row is left out and told
//! of, and there is an end to the rows of one block.

use std::ops::ControlFlow;

use micromegas_core::codec::{Result, WireError};

use super::records::{walk, Group, Visitor};
use super::{Signal, MAX_RECORDS};
use crate::block_reader::Problems;

/// Makes the rows of one kind of record.
pub trait RowMaker<'a> {
    /// Takes note of the group of the records that follow; after an error they are given all the same.
    fn group(&mut self, group: &Group<'a>) -> Result<()>;
    fn row(&mut self, record: &'a [u8]) -> Result<()>;
    /// What the records are called.
    fn record_name(&self) -> &'static str;
}

/// Gives all records of a block to `maker`. Fails where the message can't be followed any further.
pub fn make_rows<'a>(
    signal: Signal,
    message: &'a [u8],
    problems: &mut Problems,
    maker: &mut impl RowMaker<'a>,
) -> std::result::Result<(), String> {
    let mut reader = Reader {
        problems,
        maker,
        index: 0,
    };
    walk(signal, message, &mut reader).map_err(|error| error.to_string())
}

struct Reader<'p, M> {
    problems: &'p mut Problems,
    maker: &'p mut M,
    index: usize,
}

impl<'a, M: RowMaker<'a>> Visitor<'a> for Reader<'_, M> {
    fn group(&mut self, group: &Group<'a>) {
        if let Err(error) = self.maker.group(group) {
            self.problems.add(error);
        }
    }

    fn broken(&mut self, error: WireError) {
        self.problems.add(error);
    }

    fn record(&mut self, record: &'a [u8]) -> ControlFlow<()> {
        if self.index == MAX_RECORDS {
            self.problems.add(format_args!("more than {MAX_RECORDS} records"));
            return ControlFlow::Break(());
        }
        if let Err(error) = self.maker.row(record) {
            self.problems.add_event(self.index, self.maker.record_name(), error);
        }
        self.index += 1;
        ControlFlow::Continue(())
    }
}
