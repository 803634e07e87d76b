//! `micromegas._engine`: blocks to Arrow batches, thread call trees and the kernels behind the SQL functions.
//! For servers only; it must never open a file or a socket, and never call back into Python while it works on data.

pub mod arrow_py;
pub mod async_events;
pub mod async_spans;
pub mod block_reader;
pub mod block_source;
pub mod byte_column;
pub mod call_tree;
pub mod call_tree_py;
pub mod carried;
pub mod chart_functions;
pub mod clock;
pub mod color_scales;
pub mod columns;
pub mod event_builder;
pub mod frame_budget;
pub mod histogram;
pub mod histogram_functions;
pub mod images;
pub mod interner;
pub mod json_path;
pub mod json_text;
pub mod jsonb;
pub mod jsonb_functions;
pub mod log_entries;
pub mod measures;
pub mod net_spans;
pub mod net_stack;
pub mod otlp;
pub mod parse_block;
pub mod postgres_rows;
mod postgres_values;
pub mod properties;
pub mod property_sets;
pub mod scopes;
mod stateful_builder;
pub mod thread_spans;
pub mod trace;
pub mod value_tables;

use pyo3::prelude::*;

#[pymodule]
mod _engine {
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        arrow_py::register(module)?;
        call_tree_py::register(module)?;
        chart_functions::register(module)?;
        histogram_functions::register(module)?;
        jsonb_functions::register(module)?;
        otlp::python::register(module)?;
        postgres_rows::register(module)?;
        properties::register(module)?;
        value_tables::register(module)?;
        module.add_class::<async_events::AsyncEventsBuilder>()?;
        module.add_class::<async_spans::AsyncSpansBuilder>()?;
        module.add_class::<frame_budget::FrameBudget>()?;
        module.add_class::<images::ImagesBuilder>()?;
        module.add_class::<log_entries::LogEntriesBuilder>()?;
        module.add_class::<measures::MeasuresBuilder>()?;
        module.add_class::<net_spans::NetSpansBuilder>()?;
        module.add_class::<otlp::spans::OtelSpansBuilder>()?;
        module.add_class::<parse_block::BlockEvents>()?;
        module.add_class::<thread_spans::ThreadSpansBuilder>()?;
        module.add_class::<trace::encoder::TraceEncoder>()
    }
}
