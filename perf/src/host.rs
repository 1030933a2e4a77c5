//! Facts about the machine, the disk and the directory: what a number means nothing without.

use std::path::{Path, PathBuf};

use anchorlog_engine::io::sys::{self, BlockDevice};
use serde::Serialize;

const UNKNOWN: &str = "unknown";

/// Where a run took place. What cannot be found out is `unknown`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    /// Processor model.
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Memory, in MiB.
    pub(crate) memory_mib: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Block device below the directory.
    pub(crate) disk: String,
    /// Its model.
    pub(crate) disk_model: String,
    /// `write back`: a volatile cache that a flush has to empty; `write through`: none.
    pub(crate) write_cache: String,
    /// Whether the device takes single writes past its cache.
    pub(crate) fua: String,
    /// I/O scheduler.
    pub(crate) scheduler: String,
    /// File system of the directory.
    pub(crate) file_system: String,
    /// The directory.
    pub(crate) dir: PathBuf,
    /// Whether the kernel lets this process use io_uring.
    pub(crate) io_uring: String,
    /// What else took processor time when the run began (load average over one minute).
    pub(crate) load_average: String,
}

impl Host {
    /// Looks around. `dir` exists.
    pub(crate) fn look(dir: &Path) -> Host {
        let device = BlockDevice::below(dir);
        let of_device = |fact: fn(&BlockDevice) -> String| device.as_ref().map_or_else(|| UNKNOWN.to_owned(), fact);
        Host {
            cpu: proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| UNKNOWN.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: proc_field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: sys::kernel_release(),
            disk: of_device(|device| device.name.clone()),
            disk_model: of_device(model),
            write_cache: of_device(|device| device.write_cache.clone()),
            fua: of_device(|device| {
                device.fua.map_or_else(|| UNKNOWN.to_owned(), |fua| if fua { "yes" } else { "no" }.to_owned())
            }),
            scheduler: of_device(|device| device.scheduler.clone()),
            file_system: sys::filesystem_type(dir),
            dir: dir.to_owned(),
            io_uring: match anchorlog_engine::io::uring::UringBackend::new() {
                Ok(_) => "yes".to_owned(),
                Err(error) => format!("no: {error}"),
            },
            load_average: std::fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next().map(str::to_owned))
                .unwrap_or_else(|| UNKNOWN.to_owned()),
        }
    }

    /// Whether the kernel lets this process use io_uring.
    pub(crate) fn has_uring(&self) -> bool {
        self.io_uring == "yes"
    }

    /// The facts that every output states, as `(name, fact)`.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("processor", format!("{}, {} cores, {} MiB", self.cpu, self.cores, self.memory_mib)),
            ("kernel", self.kernel.clone()),
            ("disk", format!("{}, model {}", self.disk, self.disk_model)),
            ("write cache", format!("{}, FUA: {}, scheduler: {}", self.write_cache, self.fua, self.scheduler)),
            ("file system", format!("{} at {}", self.file_system, self.dir.display())),
            ("io_uring", self.io_uring.clone()),
            ("load average", self.load_average.clone()),
        ]
    }
}

/// Virtual disks have no model: then at least what they are attached to.
fn model(device: &BlockDevice) -> String {
    if device.model != UNKNOWN {
        return device.model.clone();
    }
    let attached = std::fs::canonicalize(format!("/sys/block/{}/device/driver", device.name)).ok();
    let driver = attached.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    driver.map_or_else(|| UNKNOWN.to_owned(), |driver| format!("not told (driver {driver})"))
}

fn proc_field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fact_has_words() {
        let host = Host::look(Path::new("."));
        assert!(host.cores > 0);
        assert!(host.facts().iter().all(|(name, fact)| !name.is_empty() && !fact.is_empty()));
    }
}
