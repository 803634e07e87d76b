//! Blocks of one thread's stream to its call tree: rows of `thread_spans` (lakehouse §2.3, §6.3), none NULL.
//! How spans nest is decided by `call_tree` alone; here events are only read.

use micromegas_core::codec::{Dependencies, Place, RecordType, Result, WireError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::arrow_py::{value_error, ArrowBatch};
use crate::block_reader::{for_each_event, LayoutCache, Problems, Seen, ValueBudget};
use crate::block_source::BlockSource;
use crate::call_tree::{CallTreeBuilder, ScopeId};
use crate::call_tree_py::{finished_part, GivenPart};
use crate::clock::Clock;
use crate::scopes::{is_span_type, BlockScopes, ScopePlan};

enum Plan {
    Begin {
        scope: ScopePlan,
        time: Place,
    },
    End {
        scope: ScopePlan,
        time: Place,
    },
    /// A known type whose layout cannot be used.
    Unusable(WireError),
    /// Async spans: not ours.
    Ignored,
    Unknown,
}

impl Plan {
    fn of(record_type: &RecordType) -> Self {
        Self::try_of(record_type).unwrap_or_else(Self::Unusable)
    }

    fn try_of(record_type: &RecordType) -> Result<Self> {
        let described = || ScopePlan::described(record_type, "thread_span_desc");
        let named = || ScopePlan::named(record_type, "thread_span_location");
        let time = || record_type.wide_field("time");
        Ok(match record_type.name.as_str() {
            "BeginThreadSpanEvent" => Self::Begin {
                scope: described()?,
                time: time()?,
            },
            "EndThreadSpanEvent" => Self::End {
                scope: described()?,
                time: time()?,
            },
            "BeginThreadNamedSpanEvent" => Self::Begin {
                scope: named()?,
                time: time()?,
            },
            "EndThreadNamedSpanEvent" => Self::End {
                scope: named()?,
                time: time()?,
            },
            name if is_span_type(name) => Self::Ignored,
            _ => Self::Unknown,
        })
    }
}

/// See `_engine.pyi`.
#[pyclass(module = "micromegas._engine")]
pub struct ThreadSpansBuilder {
    thread_name: String,
    layouts: LayoutCache,
    /// Made when the first block tells the clock.
    tree: Option<CallTreeBuilder>,
    /// What the tree said when it was finished.
    finished: Option<Finished>,
}

#[derive(Clone, Copy)]
struct Finished {
    rows: usize,
    anomalies: u64,
}

impl ThreadSpansBuilder {
    fn read(&mut self, source: &BlockSource, problems: &mut Problems) -> std::result::Result<(), String> {
        let clock = source.clock()?;
        let (layout, buffers) = self.layouts.open(source)?;
        let dependencies = Dependencies::parse(&layout.dependencies, &buffers.dependencies)
            .map_err(|error: WireError| error.to_string())?;
        let plans: Vec<Plan> = layout.objects.iter().map(Plan::of).collect();
        let mut scopes: BlockScopes<ScopeId> = BlockScopes::new(&dependencies, ValueBudget::of(&buffers));
        let thread_name = &self.thread_name;
        let (begin, end) = (clock.absolute(source.begin_ticks), clock.absolute(source.end_ticks));
        let tree = match &mut self.tree {
            Some(tree) => {
                tree.know_clock(clock);
                tree
            }
            None => self.tree.insert(CallTreeBuilder::new(thread_name, clock)),
        };
        tree.begin_block(begin, end);
        for_each_event(&layout, &buffers.objects, problems, |index, record| {
            let event_id = source.object_offset.saturating_add(index as i64);
            let (scope_plan, time, is_begin) = match &plans[record.index] {
                Plan::Begin { scope, time } => (scope, time, true),
                Plan::End { scope, time } => (scope, time, false),
                Plan::Unusable(error) => return Err(error.clone()),
                Plan::Ignored => return Ok(Seen::Known),
                Plan::Unknown => return Ok(Seen::Unknown),
            };
            let scope = scopes.get(&dependencies, scope_plan, record.body, |scope| {
                tree.scope(scope.name, scope.target, scope.filename, scope.line)
            })?;
            let ticks = time.i64(record.body);
            if is_begin {
                tree.on_begin(ticks, scope, event_id);
            } else {
                tree.on_end(ticks, scope, event_id);
            }
            Ok(Seen::Known)
        });
        Ok(())
    }

    fn check_open(&self) -> PyResult<()> {
        match self.finished {
            Some(_) => Err(PyRuntimeError::new_err("the spans of this thread are finished")),
            None => Ok(()),
        }
    }

    fn take_tree(&mut self) -> PyResult<CallTreeBuilder> {
        self.check_open()?;
        self.finished = Some(Finished {
            rows: self.rows(),
            anomalies: self.anomalies(),
        });
        match self.tree.take() {
            Some(tree) => Ok(tree),
            // without a block there is no row, so any clock will do
            None => {
                let clock = Clock::new(0, 0, 1).map_err(value_error)?;
                Ok(CallTreeBuilder::new(&self.thread_name, clock))
            }
        }
    }

    fn append_block(&mut self, source: &BlockSource) -> Vec<String> {
        let mut problems = Problems::new(source);
        let known = self.anomalies();
        if let Err(error) = self.read(source, &mut problems) {
            problems.add(error);
        }
        let anomalies = self.anomalies() - known;
        if anomalies > 0 {
            problems.add(format_args!(
                "{anomalies} begins and ends of spans did not fit, and were mended or dropped"
            ));
        }
        problems.into_texts()
    }
}

#[pymethods]
impl ThreadSpansBuilder {
    #[new]
    #[pyo3(signature = (thread_name, state = None))]
    fn new(py: Python<'_>, thread_name: String, state: Option<&[u8]>) -> PyResult<Self> {
        let resumed = py.detach(|| {
            state
                .map(|state| CallTreeBuilder::resume(&thread_name, state))
                .transpose()
        });
        let tree = resumed.map_err(value_error)?;
        Ok(Self {
            thread_name,
            layouts: LayoutCache::default(),
            tree,
            finished: None,
        })
    }

    fn append(&mut self, py: Python<'_>, block: BlockSource) -> PyResult<Vec<String>> {
        self.check_open()?;
        Ok(py.detach(|| self.append_block(&block)))
    }

    #[getter]
    fn rows(&self) -> usize {
        match self.finished {
            Some(finished) => finished.rows,
            None => self.tree.as_ref().map_or(0, CallTreeBuilder::rows),
        }
    }

    #[getter]
    fn anomalies(&self) -> u64 {
        match self.finished {
            Some(finished) => finished.anomalies,
            None => self.tree.as_ref().map_or(0, CallTreeBuilder::anomalies),
        }
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<ArrowBatch> {
        let tree = self.take_tree()?;
        py.detach(|| tree.finish()).map(ArrowBatch::new).map_err(value_error)
    }

    fn finish_part<'py>(&mut self, py: Python<'py>, later: (u32, i64)) -> PyResult<GivenPart<'py>> {
        let tree = self.take_tree()?;
        finished_part(py, tree, later)
    }
}
