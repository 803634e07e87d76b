//! Compiles the recorder's hot path against the headers of the interpreter that the module is built for.
//!
//! Does nothing when the crate is built without its `python` feature, as the engine does.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &[&str] = &[
    "async_block.c",
    "async_scope.c",
    "async_span.c",
    "block_memory.c",
    "buffer.c",
    "buffer_reader.c",
    "clock.c",
    "console.c",
    "counter.c",
    "frame.c",
    "gc_pause.c",
    "last_words.c",
    "level.c",
    "log.c",
    "log_elsewhere.c",
    "log_given.c",
    "log_message.c",
    "log_site.c",
    "logging_record.c",
    "mark.c",
    "metric.c",
    "module.c",
    "monitoring.c",
    "pages.c",
    "property_set.c",
    "running_thread.c",
    "signals.c",
    "site.c",
    "span.c",
    "stack.c",
    "tagged_measure.c",
    "traceback.c",
    "trace_context.c",
    "traced.c",
    "value.c",
];

fn include_directory() -> PathBuf {
    let python = env::var("PYO3_PYTHON")
        .or_else(|_| env::var("PYTHON_SYS_EXECUTABLE"))
        .unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .args(["-c", "import sysconfig; print(sysconfig.get_path('include'))"])
        .output()
        .unwrap_or_else(|error| panic!("cannot run {python}: {error}"));
    assert!(output.status.success(), "{python} does not tell its include directory");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// What decides how records and their descriptions look in a file that another process may find.
const RECORD_LAYOUT: [&str; 8] = [
    "csrc/buffer.h",
    "csrc/pages.h",
    "csrc/record.h",
    "csrc/recorder.h",
    "csrc/value.c",
    "src/message/value.rs",
    "src/recorder/record.rs",
    "src/recorder/spool/journal.rs",
];

/// FNV-1a.
fn record_layout() -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for source in RECORD_LAYOUT {
        println!("cargo:rerun-if-changed={source}");
        let text = std::fs::read(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        for byte in text {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=MICROMEGAS_RECORD_LAYOUT={:016x}", record_layout());
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    println!("cargo:rerun-if-env-changed=PYTHON_SYS_EXECUTABLE");
    println!("cargo:rerun-if-env-changed=MICROMEGAS_PUBLIC_FRAME_API");
    println!("cargo:rerun-if-env-changed=MICROMEGAS_MONOTONIC_CLOCK");
    if env::var_os("CARGO_FEATURE_PYTHON").is_none() {
        return;
    }
    let include = include_directory();
    assert!(
        include.join("Python.h").exists(),
        "{}: no Python.h, the interpreter's development files are missing",
        include.display()
    );
    let mut build = cc::Build::new();
    // A frame pointer in each of these short functions would be a tenth of them, CPython's own assertions another.
    build
        .include(&include)
        .std("gnu11")
        .opt_level(3)
        .define("NDEBUG", None)
        .force_frame_pointer(false)
        .flag_if_supported("-fomit-frame-pointer");
    build
        .flag_if_supported("-fvisibility=hidden")
        .flag_if_supported("-fno-plt");
    build.flag_if_supported("-ftls-model=initial-exec");
    // CPython's own headers are not clean under -Wextra.
    build.flag_if_supported("-Wno-unused-parameter");
    if !include.join("internal/pycore_frame.h").exists() || env::var_os("MICROMEGAS_PUBLIC_FRAME_API").is_some() {
        build.define("MM_PUBLIC_FRAME_API", "1");
    }
    if env::var_os("MICROMEGAS_MONOTONIC_CLOCK").is_some() {
        build.define("MM_FORCE_MONOTONIC", "1");
    }
    for source in SOURCES {
        build.file(Path::new("csrc").join(source));
    }
    build.compile("micromegas_hotpath");
}
