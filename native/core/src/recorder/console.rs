//! Log events as lines on the standard error stream, written by the collector: `<rfc3339> LEVEL [target] message`.
//!
//! Must never wait for a reader: what a full pipe does not take is dropped, and told with the next line.

use std::fmt::Write;

use super::hotpath;
use crate::codec::timestamp::push_rfc3339;

const NAMES: [&str; 7] = ["OFF", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
/// Of the terminal's palette: magenta, red, yellow, green, blue, grey.
const COLOURS: [&str; 7] = ["", "35", "31", "33", "32", "34", "90"];

pub struct Console {
    /// The least severe level that is printed.
    level: u32,
    coloured: bool,
    /// Time and line; printed in the order of time.
    lines: Vec<(u64, String)>,
    dropped: u64,
}

impl Console {
    pub fn new(level: u32) -> Self {
        Self {
            level,
            coloured: hotpath::stderr_is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            lines: Vec::new(),
            dropped: 0,
        }
    }

    pub fn wants(&self, level: u32) -> bool {
        level <= self.level
    }

    pub fn add(&mut self, ns: u64, wall_ns: i64, level: u32, target: &str, message: &str) {
        let mut line = String::with_capacity(64 + message.len());
        push_rfc3339(wall_ns, &mut line);
        let (name, colour) = (NAMES[level as usize % 7], COLOURS[level as usize % 7]);
        if self.coloured {
            let _ = write!(line, " \x1b[{colour}m{name:<5}\x1b[0m [{target}] ");
        } else {
            let _ = write!(line, " {name:<5} [{target}] ");
        }
        for character in message.chars() {
            // A message shall not move the cursor, or pass for something else in a terminal.
            if character.is_control() && character != '\n' && character != '\t' {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        line.push('\n');
        self.lines.push((ns, line));
    }

    /// Writes what has been added.
    pub fn print(&mut self) {
        self.lines.sort_by_key(|(ns, _)| *ns);
        for (_, line) in self.lines.drain(..) {
            if self.dropped > 0 && hotpath::write_stderr(format!("[{} lines not printed]\n", self.dropped).as_bytes()) {
                self.dropped = 0;
            }
            if self.dropped > 0 || !hotpath::write_stderr(line.as_bytes()) {
                self.dropped += 1;
            }
        }
    }
}
