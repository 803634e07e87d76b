//! Compiles the recorder's hot path against the headers of the interpreter that the module is built for.
//!
//! Does nothing when the crate is built without its `python` feature, as the engine does.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &[&str] = &[
    "async_span.c",
    "buffer.c",
    "clock.c",
    "counter.c",
    "gc_pause.c",
    "last_words.c",
    "level.c",
    "log.c",
    "logging_record.c",
    "mark.c",
    "metric.c",
    "module.c",
    "monitoring.c",
    "property_set.c",
    "signals.c",
    "site.c",
    "span.c",
    "stack.c",
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

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    println!("cargo:rerun-if-env-changed=PYTHON_SYS_EXECUTABLE");
    println!("cargo:rerun-if-env-changed=MICROMEGAS_PUBLIC_FRAME_API");
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
    for source in SOURCES {
        build.file(Path::new("csrc").join(source));
    }
    build.compile("micromegas_hotpath");
}
