use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// Reads one line or the end of its input. The end means that the test process is gone: kill the process named by the
/// first argument, wait until it has let go of its files, and remove the folder named by the second, if any.
const SCRIPT: &str = r#"
read -r _ && exit 0
kill -KILL "$1" 2>/dev/null
rounds=0
while [ "$rounds" -lt 50 ] && kill -0 "$1" 2>/dev/null; do sleep 0.1; rounds=$((rounds + 1)); done
[ -z "$2" ] || rm -rf -- "$2"
"#;

/// Kills a child when the test process dies without stopping it: by SIGKILL, by an abort, or by the end of `main` with
/// the child in a static.
///
/// A shell holds the reading end of a pipe and the test process the only writing end, so that the kernel itself tells
/// it of the death. The shell is in a process group of its own, out of reach of the terminal's ctrl-c.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

impl Watchdog {
    /// Watches over the process `pid`; `folder` is removed after the kill.
    pub(crate) fn over(pid: u32, folder: Option<&Path>) -> Result<Self, Failure> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog", &pid.to_string()])
            .arg(folder.unwrap_or_else(|| Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start `sh` as a watchdog: {error}")))?;
        Ok(Self(child))
    }

    /// Ends the watch. To be called once the watched process has been waited for, since its id is free from then on.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // A shell that has died already needs no dismissal.
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.0.wait();
    }
}
