//! Measures of the machine and of this process, by the names that existing dashboards ask for.
//!
//! Read from /proc by the native thread, which holds no lock of the interpreter; where there is no /proc, nothing is
//! measured. Must never keep the collector from the buffers for longer than a few small files take.

use std::fs;
use std::time::{Duration, Instant};

use super::descriptor::Descriptor;
use super::descriptors::metric_descriptor;
use super::metric_stream::{Measure, MetricStream};

const MACHINE_PERIOD: Duration = Duration::from_secs(1);
const PROCESS_PERIOD: Duration = Duration::from_secs(5);

type Metric = Option<&'static Descriptor>;

/// Ticks of all cores since the machine started.
#[derive(Clone, Copy, PartialEq, Debug)]
struct CpuTimes {
    busy: u64,
    all: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Memory {
    total: u64,
    free: u64,
    available: u64,
}

pub struct SystemMonitor {
    machine_due: Instant,
    process_due: Instant,
    total_is_told: bool,
    cpu_before: Option<CpuTimes>,
    total_memory: Metric,
    used_memory: Metric,
    free_memory: Metric,
    cpu_usage: Metric,
    process_resident: Metric,
    process_virtual: Metric,
    process_peak_resident: Metric,
}

impl SystemMonitor {
    pub fn new() -> Self {
        let now = Instant::now();
        let bytes = |name| metric_descriptor(("micromegas.system", "", 0), name, "bytes", &[]);
        Self {
            machine_due: now,
            process_due: now,
            total_is_told: false,
            cpu_before: None,
            total_memory: bytes("total_memory"),
            used_memory: bytes("used_memory"),
            free_memory: bytes("free_memory"),
            cpu_usage: metric_descriptor(("micromegas.system", "", 0), "cpu_usage", "percent", &[]),
            process_resident: bytes("process_resident_bytes"),
            process_virtual: bytes("process_virtual_bytes"),
            process_peak_resident: bytes("process_peak_resident_bytes"),
        }
    }

    /// Adds what is due.
    pub fn measure(&mut self, ns: u64, metrics: &mut MetricStream) {
        let now = Instant::now();
        if now >= self.machine_due {
            self.machine_due = now + MACHINE_PERIOD;
            self.measure_machine(ns, metrics);
        }
        if now >= self.process_due {
            self.process_due = now + PROCESS_PERIOD;
            let status = file("/proc/self/status").unwrap_or_default();
            for (metric, field) in [
                (self.process_virtual, "VmSize"),
                (self.process_resident, "VmRSS"),
                (self.process_peak_resident, "VmHWM"),
            ] {
                if let Some(bytes) = kibibytes(&status, field) {
                    add(metrics, ns, metric, bytes);
                }
            }
        }
    }

    fn measure_machine(&mut self, ns: u64, metrics: &mut MetricStream) {
        if let Some(memory) = file("/proc/meminfo").as_deref().and_then(parse_meminfo) {
            if !self.total_is_told {
                self.total_is_told = true;
                add(metrics, ns, self.total_memory, memory.total);
            }
            let used = memory.total.saturating_sub(memory.available);
            add(metrics, ns, self.used_memory, used);
            add(metrics, ns, self.free_memory, memory.free);
        }
        let cpu = file("/proc/stat").as_deref().and_then(parse_stat);
        if let (Some(usage), Some(metric)) = (cpu_usage(self.cpu_before, cpu), self.cpu_usage) {
            metrics.add(ns, metric, Measure::Float(usage));
        }
        self.cpu_before = cpu;
    }
}

fn file(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn add(metrics: &mut MetricStream, ns: u64, metric: Metric, value: u64) {
    if let (Some(metric), Ok(value)) = (metric, i64::try_from(value)) {
        metrics.add(ns, metric, Measure::Integer(value));
    }
}

/// The bytes that a line like `VmSize:   120 kB` tells.
fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Kernels before 3.14 do not tell what is available: what is free is.
fn parse_meminfo(text: &str) -> Option<Memory> {
    let free = kibibytes(text, "MemFree")?;
    Some(Memory {
        total: kibibytes(text, "MemTotal")?,
        free,
        available: kibibytes(text, "MemAvailable").unwrap_or(free),
    })
}

/// The line of all cores: user nice system idle iowait irq softirq steal; guest time is in user already.
fn parse_stat(text: &str) -> Option<CpuTimes> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    let all: u64 = times.iter().sum();
    let idle = times.get(3)? + times.get(4).unwrap_or(&0);
    Some(CpuTimes { busy: all - idle, all })
}

/// Percent of all cores between two looks.
fn cpu_usage(before: Option<CpuTimes>, now: Option<CpuTimes>) -> Option<f64> {
    let (before, now) = (before?, now?);
    let all = now.all.checked_sub(before.all).filter(|&ticks| ticks > 0)?;
    // Kernels let idle time jump back at times.
    let busy = now.busy.saturating_sub(before.busy).min(all);
    Some(100.0 * busy as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_kernel() {
        let text = "MemTotal:       16384 kB\nMemFree:         1024 kB\nMemAvailable:    8192 kB\n";
        let expected = Memory {
            total: 16_777_216,
            free: 1_048_576,
            available: 8_388_608,
        };
        assert_eq!(parse_meminfo(text), Some(expected));
        let old = parse_meminfo("MemTotal: 2 kB\nMemFree: 1 kB\n");
        assert_eq!(old.map(|memory| memory.available), Some(1024));
        for broken in [
            "",
            "MemTotal: 1 kB",
            "MemTotal: x kB\nMemFree: 1 kB",
            "MemTotal: 18446744073709551615 kB\nMemFree: 1 kB",
        ] {
            assert_eq!(parse_meminfo(broken), None);
        }
    }

    #[test]
    fn share_of_the_cores() {
        let before = parse_stat("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1\n");
        assert_eq!(before, Some(CpuTimes { busy: 200, all: 1000 }));
        let now = parse_stat("cpu  150 0 125 750 125 25 25 0 0 0\n");
        assert_eq!(cpu_usage(before, now), Some(62.5));
        assert_eq!(cpu_usage(before, before), None);
        assert_eq!(cpu_usage(now, before), None);
        assert_eq!(cpu_usage(None, now), None);
        for broken in ["", "cpu0 1 2 3 4\n", "cpu  1 2 x\n"] {
            assert_eq!(parse_stat(broken), None);
        }
    }
}
